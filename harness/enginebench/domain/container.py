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
    """CPUs it may use: '0-15,32-47'; None: all."""
    memory: str | None = None
    """A size such as '64GiB'."""
    shm: str = "16GiB"
    """Size of /dev/shm, through which ranks communicate."""
    ipc: Literal["private", "host"] = "private"
    """'private': shared by the containers of the deployment only. 'host': the machine's IPC namespace."""
    ulimits: Mapping[str, int] = field(default_factory=dict)
    """Resource, such as 'memlock' -> its soft and hard limit; -1: none."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, stored with their values."""
    secrets: tuple[str, ...] = ()
    """*Names* of environment variables; the container gets their values."""
    mounts: tuple[str, ...] = ()
    """'HOST:INSIDE' or 'HOST:INSIDE:rw'."""
    hf_cache: bool = True
    """Whether this machine's Hugging Face cache is mounted where the checkpoint is a hub id."""
    compile_cache: str | None = None
    """Folder of this machine that keeps compiled kernels between starts; None: every start compiles again."""
    offline: bool = False
    """Whether no image is pulled, and Hugging Face libraries may not download."""
    user: str = "caller"
    """'caller', 'image', or 'UID[:GID]'."""
    network: Literal["private", "host"] = "private"
    """'private': a network for the deployment, with published ports. 'host': the machine's network."""
    address: str | None = None
    """Address of the daemon's machine where ports are published; None: the loopback."""
