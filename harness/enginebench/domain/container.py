"""What a deployment says of the container it runs in: the `container:` of a scenario, as frozen plain data.

Knows nothing of Docker; `enginebench.runtime.container.spec` turns it into what the Docker API takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Container:
    """How an engine is boxed in. The defaults leave out whatever the daemon decides by itself.

    variant: of the engine's images in containers/images.yaml; None: the first one that serves the deployment. image: run instead of it.
    gpus: a number, 'all' or UUIDs; None: as many as the deployment takes. cpus: cores' worth of processor time. memory and shm: sizes
    such as '64GiB'. secrets: *names* of environment variables whose values the container gets. mounts: 'HOST:INSIDE' or
    'HOST:INSIDE:rw'. user: 'caller', 'image', or 'UID[:GID]'. address: of the daemon's machine, where ports are published; None: the
    loopback.
    """

    variant: str | None = None
    image: str | None = None
    gpus: int | Literal["all"] | tuple[str, ...] | None = None
    cpus: float | None = None
    cpuset: str | None = None
    memory: str | None = None
    shm: str = "16GiB"
    ipc: Literal["private", "host"] = "private"
    ulimits: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    hf_cache: bool = True
    compile_cache: str | None = None
    offline: bool = False
    user: str = "caller"
    network: Literal["private", "host"] = "private"
    address: str | None = None
