"""The Docker daemon: reaching it, and what its refusals mean in one sentence. Podman's socket answers as well, through DOCKER_HOST.

Knows nothing of engines, scenarios or the order of things. The SDK is imported when a daemon is first asked for: that takes a fifth
of a second that nobody else should pay. Docker contexts are not read; DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from enginebench.adapter import Unsupported
from enginebench.runtime.exit_status import LaunchFailed

Client: TypeAlias = Any
"""docker.DockerClient, which comes without types."""

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
TIMEOUT_S = 60.0
AMD_DEVICES = ("/dev/kfd", "/dev/dri")


class DaemonGone(LaunchFailed):
    """No daemon answers, or it may not be asked."""


def address() -> str:
    """The daemon's address, as the environment has it."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET


def elsewhere() -> str | None:
    """The daemon's machine, where that is not this one by its address; None: this one."""
    host = urlsplit(address()).hostname if not address().startswith(("unix:", "npipe:")) else None
    return None if host in (None, "localhost", "127.0.0.1", "::1") else host


def connect(timeout_s: float = TIMEOUT_S) -> Client:
    """A client whose daemon has answered. Raises DaemonGone with the reason."""
    import docker
    from docker.errors import DockerException

    with contextlib.ExitStack() as stack:
        stack.enter_context(sentences())
        try:
            client = docker.from_env(timeout=timeout_s, use_ssh_client=True)
            stack.callback(client.close)
            client.ping()
        except (DockerException, ValueError) as error:  # ValueError: a port that is none
            raise _unreachable(error) from None
        stack.pop_all()
    return client


def _unreachable(error: BaseException) -> DaemonGone:
    causes = " ".join(str(cause) for cause in _chain(error))
    if "Permission denied" in causes:
        return DaemonGone(f"this user may not use the Docker daemon at {address()}; join the docker group, or use a rootless one")
    return DaemonGone(f"no Docker daemon answers at {address()}; start it, or set DOCKER_HOST")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def sentences(doing: str = "") -> Iterator[None]:
    """Turns what the SDK raises into LaunchFailed, or Unsupported where this machine lacks a device, with one sentence."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        said = str(error.explanation or error)
        if devices_missing(said):
            raise Unsupported(f"GPUs were asked for, and the Docker daemon has none to give: {said.strip()}") from None
        raise LaunchFailed(f"{doing}{in_words(said)}") from None
    except (DockerException, RequestException) as error:
        raise _unreachable(error) from None


def devices_missing(said: str) -> bool:
    """Whether a refusal of the daemon is for want of a GPU, or of the vendor's hook that hands GPUs to containers."""
    signs = ("could not select device driver", "nvidia-container-cli", "unknown device", "/dev/kfd", "/dev/dri", "unresolvable CDI")
    return any(sign in said for sign in signs)


def in_words(said: str) -> str:
    """A refusal of the daemon for people: what it means where that is known, and always what it said."""
    meanings = {
        "port is already allocated": "a port is taken",
        "address already in use": "a port is taken",
        "cannot assign requested address": "container.address is no address of the daemon's machine",
        "container-init binary not found": "Podman's machine lacks catatonit, which runs as process 1",
        "error setting rlimit": "a limit is above what that machine allows: say container.ulimits, as in {nofile: 4096, nproc: 4096}",
        "executable file not found": "the image has no such program",
        "no such file or directory": "the image has no such program, or lacks what the program needs",
        "bind source path does not exist": "the daemon's machine has no such folder to mount",
        "Requested CPUs are not available": "container.cpuset names processors that the daemon's machine lacks",
        "Minimum memory limit": "container.memory is too little",
    }
    meaning = next((meaning for sign, meaning in meanings.items() if sign.lower() in said.lower()), "")
    return f"{meaning}: {said.strip()}" if meaning else f"the Docker daemon refused: {said.strip()}"


def caller(client: Client, user: str) -> str | None:
    """What `container.user` means here: 'UID:GID', or None for the image's own user.

    Where the daemon is rootless, root inside is the caller outside.
    """
    if user == "image":
        return None
    if user != "caller":
        return user
    with sentences():
        options = client.info().get("SecurityOptions") or ()
    return "0:0" if any("name=rootless" in option for option in options) else f"{os.getuid()}:{os.getgid()}"


def device_groups() -> tuple[int, ...]:
    """Groups that own AMD's device files on this machine; a container names them by number, as the image may have other names."""
    files = [Path(AMD_DEVICES[0]), *sorted(Path(AMD_DEVICES[1]).glob("render*"))]
    return tuple(sorted({file.stat().st_gid for file in files if file.exists() and stat.S_ISCHR(file.stat().st_mode)}))
