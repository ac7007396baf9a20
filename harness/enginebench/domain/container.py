"""The container that a deployment runs in: the `container:` of a scenario, as frozen plain data.

Knows nothing of Docker; `enginebench.runtime.container.spec` turns it into what the Docker API takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Container:
    """Settings of an engine's container. A default leaves the decision to the daemon."""

    variant: str | None = None
    """Which of the engine's images in containers/images.yaml; None: the first one that supports the deployment."""
    image: str | None = None
    """Image to run instead."""
    gpus: int | Literal["all"] | tuple[str, ...] | None = None
    """A number, 'all' or UUIDs; None: as many as the deployment takes."""
    cpus: float | None = None
    """CPU time in cores."""
    cpuset: str | None = None
    memory: str | None = None
    """A size such as '64GiB'."""
    shm: str = "16GiB"
    ipc: Literal["private", "host"] = "private"
    ulimits: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """*Names* of environment variables; the container gets their values."""
    mounts: tuple[str, ...] = ()
    """'HOST:INSIDE' or 'HOST:INSIDE:rw'."""
    hf_cache: bool = True
    compile_cache: str | None = None
    offline: bool = False
    user: str = "caller"
    """'caller', 'image', or 'UID[:GID]'."""
    network: Literal["private", "host"] = "private"
    address: str | None = None
    """Address of the daemon's machine where ports are published; None: the loopback."""
