"""Connects to the Docker daemon and explains its errors in one sentence. Podman works through DOCKER_HOST.

DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are read, Docker contexts are not. The SDK takes 0.2 s to import: only when needed.
"""

import contextlib
import os
import socket
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
_MOMENT_S = 0.3
AMD_DEVICES = ("/dev/kfd", "/dev/dri")


class DaemonUnreachable(LaunchFailed):
    """No daemon responds, or this user lacks permission."""


def address() -> str:
    """The daemon's address from the environment."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET


def remote_host() -> str | None:
    """The daemon's host name if its address is on another machine; None: this machine."""
    host = urlsplit(address()).hostname if not address().startswith(("unix:", "npipe:")) else None
    return None if host in (None, "localhost", "127.0.0.1", "::1") else host


def connect(timeout_s: float = TIMEOUT_S) -> Client:
    """A client whose daemon has responded. Raises DaemonUnreachable with the reason."""
    import docker
    from docker.errors import DockerException

    with contextlib.ExitStack() as stack:
        stack.enter_context(translated_errors())
        try:
            client = docker.from_env(timeout=timeout_s, use_ssh_client=True)
            stack.callback(client.close)
            client.ping()
        except (DockerException, ValueError) as error:  # ValueError: an invalid port
            raise _unreachable(error) from None
        stack.pop_all()
    return client


def refusal() -> str | None:
    """Why no daemon can be reached, found without the SDK and within a moment; None if there is one, or if it cannot be told so fast."""
    path = address().removeprefix("unix://")
    if path == address():
        return None  # another machine may take longer
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
            attempt.settimeout(_MOMENT_S)
            attempt.connect(path)
    except TimeoutError:
        return None
    except OSError as error:
        return _unreachable(error).reason
    return None


def _unreachable(error: BaseException) -> DaemonUnreachable:
    causes = " ".join(str(cause) for cause in _chain(error))
    if "Permission denied" in causes:
        return DaemonUnreachable(f"no permission for the Docker daemon at {address()}; join the docker group, or use a rootless daemon")
    return DaemonUnreachable(f"no response from a Docker daemon at {address()}; start it, or set DOCKER_HOST")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def translated_errors(prefix: str = "") -> Iterator[None]:
    """Convert exceptions of the SDK to LaunchFailed, or to Unsupported if a device is missing, with one sentence after the prefix."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        message = str(error.explanation or error)
        if devices_missing(message):
            raise Unsupported(f"the Docker daemon cannot provide the requested GPUs: {message.strip()}") from None
        raise LaunchFailed(f"{prefix}{explain(message)}") from None
    except (DockerException, RequestException) as error:
        raise _unreachable(error) from None


def devices_missing(message: str) -> bool:
    """Whether an error of the daemon means that a GPU or the vendor's container runtime is missing."""
    signs = ("could not select device driver", "nvidia-container-cli", "unknown device", "/dev/kfd", "/dev/dri", "unresolvable CDI")
    return any(sign in message for sign in signs)


def explain(message: str) -> str:
    """An error message of the daemon, preceded by its meaning if that is known."""
    meanings = {
        "port is already allocated": "a port is taken",
        "address already in use": "a port is taken",
        "cannot assign requested address": "container.address is not an address of the daemon's machine",
        "container-init binary not found": "Podman's machine lacks catatonit, which runs as process 1",
        "error setting rlimit": "a limit is above what the daemon's machine allows: set container.ulimits, as {nofile: 4096, nproc: 4096}",
        "executable file not found": "the image does not contain the program",
        "no such file or directory": "the image does not contain the program, or a library that the program needs",
        "bind source path does not exist": "a folder to mount does not exist on the daemon's machine",
        "Requested CPUs are not available": "container.cpuset names CPUs that the daemon's machine lacks",
        "Minimum memory limit": "container.memory is too small",
    }
    meaning = next((meaning for sign, meaning in meanings.items() if sign.lower() in message.lower()), "error of the Docker daemon")
    return f"{meaning}: {message.strip()}"


def caller(client: Client, user: str) -> str | None:
    """Resolve `container.user` to 'UID:GID', or to None for the image's own user.
    With a rootless daemon, root in the container is the caller's user on the host."""
    if user == "image":
        return None
    if user != "caller":
        return user
    with translated_errors():
        options = client.info().get("SecurityOptions") or ()
    return "0:0" if any("name=rootless" in option for option in options) else f"{os.getuid()}:{os.getgid()}"


def device_groups() -> tuple[int, ...]:
    """Numeric groups that own AMD's device files on this machine (group names may differ in the image)."""
    files = [Path(AMD_DEVICES[0]), *sorted(Path(AMD_DEVICES[1]).glob("render*"))]
    return tuple(sorted({file.stat().st_gid for file in files if file.exists() and stat.S_ISCHR(file.stat().st_mode)}))
