"""What the pages of a site share: style, scripts and the plotting library, each under a name that changes with its content."""

from __future__ import annotations

import hashlib
from functools import cache
from types import MappingProxyType

from enginebench.machine.folders import resource_dir
from enginebench.report.packed import plotly_source
from enginebench.report.page import Place, page_script, page_style

LINKS = MappingProxyType({"Home": "index.html", "Compare": "compare.html", "Data": "data/index.json"})

_OWN = ("site.css", "site.js", "compare.js")


@cache
def assets() -> dict[str, str]:
    """Kind ('style', 'report', 'site', 'compare', 'library') -> its path in the site."""
    return {kind: path for kind, (path, _) in _made().items()}


def asset_files() -> dict[str, str]:
    """Path -> content."""
    return dict(_made().values())


def place(depth: int, *scripts: str) -> Place:
    """Where a page lies that many folders below the root of the site. scripts: kinds of assets."""
    up = "../" * depth
    made = {kind: f"{up}{path}" for kind, path in assets().items()}
    return Place(made["style"], tuple(made[kind] for kind in scripts), made["library"], {text: f"{up}{at}" for text, at in LINKS.items()})


@cache
def _made() -> dict[str, tuple[str, str]]:
    own = {name: (resource_dir("reports/templates") / "site" / name).read_text(encoding="utf-8") for name in _OWN}
    contents = {
        "style": (".css", page_style() + own["site.css"]), "report": (".js", page_script()), "site": (".js", own["site.js"]),
        "compare": (".js", own["compare.js"]), "library": (".js", plotly_source()),
    }  # fmt: skip
    return {kind: (f"assets/{kind}-{_short(text)}{suffix}", text) for kind, (suffix, text) in contents.items()}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
