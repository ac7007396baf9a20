"""What the Docker API is asked for: a container's settings and the command of an engine in, the arguments of one container out.

Pure: no daemon, no file, no environment is looked at here. What it cannot know (the caller's ids, the daemon's network, values of secrets)
comes in as `Surroundings`. The words are those of `docker.models.containers.ContainerCollection.create`.

All containers of a deployment share one network namespace, that of the first one, as the processes of one machine do: an adapter's
addresses mean the same in a container and out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from enginebench.adapter import WORKERS
from enginebench.domain.container import Container
from enginebench.runtime.environment import ADDED
from enginebench.runtime.leftovers import MARKER

Accelerator: TypeAlias = Literal["cpu", "nvidia", "amd"]
"""What an image's engine computes on."""

SITE = PurePosixPath("/site")
"""The launch's own folder inside: files of the launch, the home of whoever the engine runs as."""
INSIDE_WORKERS = "/opt/enginebench/workers"
MODELS = PurePosixPath("/models")
HF_HOME, COMPILED = "/cache/huggingface", "/cache/compiled"
ANY = "0.0.0.0"  # noqa: S104  # inside a network namespace of its own; connecting to it there is the loopback
"""Where engines listen in a private network, and where they reach each other."""
LOOPBACK = "127.0.0.1"
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
COMPILE_CACHES = {
    "VLLM_CACHE_ROOT": f"{COMPILED}/vllm",
    "TORCHINDUCTOR_CACHE_DIR": f"{COMPILED}/inductor",
    "TRITON_CACHE_DIR": f"{COMPILED}/triton",
    "TORCH_EXTENSIONS_DIR": f"{COMPILED}/torch_extensions",
}
"""Where vLLM and what PyTorch compiles with keep it, and extensions that are built when first imported; the rest follows XDG_CACHE_HOME."""


@dataclass(frozen=True)
class Bind:
    """A path of the daemon's machine seen inside."""

    host: str
    inside: str
    writable: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What one deployment's containers have in common beside the scenario.

    binds: what is mounted beside container.mounts. ports: inside, to be published. gpus: devices, where container.gpus does not
    say. device_groups: numeric groups that own AMD's device files. secrets: name -> value. network: name of the private one.
    """

    image: str
    tag: str
    labels: Mapping[str, str]
    ports: tuple[int, ...] = ()
    binds: tuple[Bind, ...] = ()
    accelerator: Accelerator = "cpu"
    gpus: int = 0
    device_groups: tuple[int, ...] = ()
    user: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    network: str = ""


def in_bytes(size: str) -> int:
    """'64GiB' as bytes."""
    return int(size[:-3]) * UNITS[size[-3:]]


def inside(text: str) -> str:
    """An argument or a variable's value, with the folder of engine-side scripts where it is inside the container."""
    return text.replace(str(WORKERS), INSIDE_WORKERS)


def arguments(
    container: Container, around: Surroundings, *, name: str, argv: Sequence[str], env: Mapping[str, str], folder: str, first: str | None
) -> dict[str, Any]:
    """The arguments of one container. folder: where it works, inside. first: id of the deployment's first container; None: this is it."""
    return {
        "image": around.image,
        "name": name,
        "entrypoint": [inside(argv[0])],
        "command": [inside(text) for text in argv[1:]],
        "environment": environment(container, around, env),
        "labels": dict(around.labels),
        "working_dir": folder,
        "mounts": _mounts(container, around),
        "init": True,  # an engine as process 1 would ignore SIGTERM, and nobody would reap its children
        **_devices(container, around),
        **_limits(container),
        **({"user": around.user} if around.user else {}),
        **_spaces(container, around, first),
    }


def environment(container: Container, around: Surroundings, env: Mapping[str, str]) -> dict[str, str]:
    """What the engine sees beside the image's own variables. Later ones win: ours, the launch's, the scenario's, secrets."""
    caches = {"HF_HOME": HF_HOME} if any(bind.inside == HF_HOME for bind in around.binds) else {}
    compiled = {**COMPILE_CACHES, "XDG_CACHE_HOME": COMPILED} if container.compile_cache else {}
    # A user id without a line in the image's /etc/passwd has neither home nor name; libraries die of that.
    person = {"HOME": str(SITE), "USER": "enginebench", "LOGNAME": "enginebench"} if around.user else {}
    launch = {key: inside(value) for key, value in env.items()}
    told = (OFFLINE if container.offline else {}) | _amd_choice(container, around)
    return {**ADDED, **person, **caches, **compiled, **told, **launch, **container.env, **around.secrets, MARKER: around.tag}


def _mounts(container: Container, around: Surroundings) -> list[dict[str, Any]]:
    """As the API's Mount objects, which (unlike `volumes`) refuse a path that is not there instead of making it, as root."""
    own = [Bind(container.compile_cache, COMPILED, writable=True)] if container.compile_cache else []
    asked = [Bind(host, where, mode == ["rw"]) for host, where, *mode in (text.split(":") for text in container.mounts)]
    binds = (*around.binds, *own, *asked)
    return [{"Type": "bind", "Source": bind.host, "Target": bind.inside, "ReadOnly": not bind.writable} for bind in binds]


def wanted_gpus(container: Container, around: Surroundings) -> int | str | tuple[str, ...]:
    """How many devices, 'all', or which; 0: none. An image that computes on none gets some only when the scenario says so."""
    if container.gpus is not None:
        return container.gpus
    return around.gpus if around.accelerator != "cpu" else 0


def _devices(container: Container, around: Surroundings) -> dict[str, Any]:
    wanted = wanted_gpus(container, around)
    if not wanted:
        return {}
    if around.accelerator == "amd":
        return {
            "devices": ["/dev/kfd:/dev/kfd:rwm", "/dev/dri:/dev/dri:rwm"],
            "group_add": [str(group) for group in around.device_groups],
            "security_opt": ["seccomp=unconfined"],  # ROCm maps memory between processes with calls that the default profile denies
        }
    request: dict[str, Any] = {"driver": "", "capabilities": [["gpu"]]}
    request |= {"device_ids": list(wanted)} if isinstance(wanted, tuple) else {"count": -1 if wanted == "all" else wanted}
    return {"device_requests": [request]}


def _amd_choice(container: Container, around: Surroundings) -> dict[str, str]:
    """AMD's device files come together; which of the devices are used is told by a variable that ROCr reads."""
    wanted = wanted_gpus(container, around)
    if around.accelerator != "amd" or not wanted or isinstance(wanted, str):
        return {}
    return {"ROCR_VISIBLE_DEVICES": ",".join(wanted if isinstance(wanted, tuple) else map(str, range(wanted)))}


def _limits(container: Container) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if container.memory:
        limits |= {"mem_limit": in_bytes(container.memory), "memswap_limit": in_bytes(container.memory)}
    if container.cpus:
        limits["nano_cpus"] = round(container.cpus * 1e9)
    if container.cpuset:
        limits["cpuset_cpus"] = container.cpuset
    if container.ulimits:
        limits["ulimits"] = [{"Name": name, "Soft": value, "Hard": value} for name, value in container.ulimits.items()]
    return limits


def _spaces(container: Container, around: Surroundings, first: str | None) -> dict[str, Any]:
    """Network and shared memory: the first container has them, the others join."""
    spaces: dict[str, Any] = {"ipc_mode": "host"}
    if container.ipc == "private":
        spaces = {"ipc_mode": f"container:{first}"} if first else {"ipc_mode": "shareable", "shm_size": in_bytes(container.shm)}
    if container.network == "host":
        return {**spaces, "network_mode": "host"}
    if first:
        return {**spaces, "network_mode": f"container:{first}"}
    published = {f"{port}/tcp": (container.address or LOOPBACK, None) for port in around.ports}  # None: a free one, chosen by the daemon
    return {**spaces, "network": around.network, "ports": published}
