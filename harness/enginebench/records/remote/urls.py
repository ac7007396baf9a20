"""Which names are URLs of a store, and where its mirror lies on this machine. Imports no file system."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from enginebench.machine.folders import state_dir

_URL = re.compile(r"([a-z][a-z0-9+]+):(/{1,3})(.*)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"(?<=://)[^/@]*@")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def url_of(path: str | Path) -> str | None:
    """The URL that a name is, without a slash at its end; None for a name of a file. `Path` has made one slash of two, which is undone."""
    found = _URL.fullmatch(str(path))
    if found is None or Path(path).exists():
        return None
    scheme, slashes, rest = found.groups()
    root = "/" if scheme.lower() == "file" and (slashes != "//" or rest.startswith("/")) else ""
    return f"{scheme.lower()}://{root}{rest.strip('/')}"


def shown(url: str) -> str:
    """Without user name and password."""
    return _SECRET.sub("", url)


def mirror_of(url: str) -> Path:
    """The folder of this machine that mirrors the folder of runs at a URL. It also holds what is not uploaded yet, so it is no cache."""
    name = _UNSAFE.sub("-", shown(url)).strip("-")[:60]
    return state_dir() / "stores" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def split(url: str) -> tuple[str, str]:
    """The URL of the folder that holds it, and its name."""
    parent, _, name = url.rpartition("/")
    return parent, name
