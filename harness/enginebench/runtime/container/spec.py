"""Converts container settings and an engine's command to the arguments of `docker.models.containers.ContainerCollection.create`.

Pure: facts from outside (user ids, the daemon's network, values of secrets) come in as `PodSettings`. All containers of a deployment share
the network namespace of the first one, so the addresses that an adapter uses mean the same with and without containers.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from enginebench.adapter import WORKERS
from enginebench.domain.container import Container
from enginebench.runtime.environment import ADDED
from enginebench.runtime.leftovers import MARKER

Accelerator: TypeAlias = Literal["cpu", "nvidia", "amd"]
"""The device type that an image supports."""

SITE = PurePosixPath("/site")
"""The launch's folder in the container: its files, and the home of the user that runs the engine."""
INSIDE_WORKERS = "/opt/enginebench/workers"
MODELS = PurePosixPath("/models")
HF_HOME, COMPILED = "/cache/huggingface", "/cache/compiled"
ANY = "0.0.0.0"  # noqa: S104  # in a private network namespace; connecting to it there reaches the loopback
"""The address on which engines listen in a private network, and at which they reach each other."""
LOOPBACK = "127.0.0.1"
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
COMPILE_CACHES = {
    "VLLM_CACHE_ROOT": f"{COMPILED}/vllm",
    "TORCHINDUCTOR_CACHE_DIR": f"{COMPILED}/inductor",
    "TRITON_CACHE_DIR": f"{COMPILED}/triton",
    "TORCH_EXTENSIONS_DIR": f"{COMPILED}/torch_extensions",
}
"""Caches of vLLM, of PyTorch's compilers, and of extensions that are built at the first import. Other caches follow XDG_CACHE_HOME."""


@dataclass(frozen=True)
class Bind:
    """A path of the daemon's machine that is mounted in the container."""

    host: str
    inside: str
    writable: bool = False


@dataclass(frozen=True)
class PodSettings:
    """Settings common to the containers of one deployment, in addition to the scenario's."""

    image: str
    tag: str
    labels: Mapping[str, str]
    ports: tuple[int, ...] = ()
    """Ports in the container that are published."""
    binds: tuple[Bind, ...] = ()
    """Mounts in addition to container.mounts."""
    accelerator: Accelerator = "cpu"
    gpus: int = 0
    """Number of devices, unless container.gpus is set."""
    device_groups: tuple[int, ...] = ()
    """Numeric groups that own AMD's device files."""
    user: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are not shown or logged."""
    network: str = ""
    """Name of the private network."""


def in_bytes(size: str) -> int:
    """'64GiB' as bytes."""
    return int(size[:-3]) * UNITS[size[-3:]]


def inside(text: str) -> str:
    """Replace the folder of the worker scripts in a text by its path in the container."""
    return text.replace(str(WORKERS), INSIDE_WORKERS)


def arguments(
    container: Container, common: PodSettings, *, name: str, argv: Sequence[str], env: Mapping[str, str], folder: str, first: str | None
) -> dict[str, Any]:
    """The arguments of one container. folder: working folder inside. first: id of the deployment's first container; None: this one."""
    return {
        "image": common.image, "name": name, "entrypoint": [inside(argv[0])], "command": [inside(text) for text in argv[1:]],
        "environment": environment(container, common, env), "labels": dict(common.labels), "working_dir": folder,
        "mounts": _mounts(container, common),
        "init": True,  # an engine as process 1 would ignore SIGTERM and not reap its children
        **_devices(container, common),
        **_limits(container),
        **({"user": common.user} if common.user else {}),
        **_namespaces(container, common, first),
    }  # fmt: skip


def environment(container: Container, common: PodSettings, env: Mapping[str, str]) -> dict[str, str]:
    """Variables in addition to the image's. Later ones win: ADDED and caches, the launch's, the scenario's, secrets."""
    caches = {"HF_HOME": HF_HOME} if any(bind.inside == HF_HOME for bind in common.binds) else {}
    compiled = {**COMPILE_CACHES, "XDG_CACHE_HOME": COMPILED} if container.compile_cache else {}
    # A user id that is not in the image's /etc/passwd has no home and no name, and some libraries fail without them.
    user = {"HOME": str(SITE), "USER": "enginebench", "LOGNAME": "enginebench"} if common.user else {}
    launch = {key: inside(value) for key, value in env.items()}
    settings = (OFFLINE if container.offline else {}) | _amd_devices(container, common)
    return {**ADDED, **user, **caches, **compiled, **settings, **launch, **container.env, **common.secrets, MARKER: common.tag}


def _mounts(container: Container, common: PodSettings) -> list[dict[str, Any]]:
    """Mount objects of the API. Unlike `volumes`, these fail for a missing path instead of creating it as root."""
    own = [Bind(container.compile_cache, COMPILED, writable=True)] if container.compile_cache else []
    asked = [Bind(host, target, mode == ["rw"]) for host, target, *mode in (text.split(":") for text in container.mounts)]
    binds = (*common.binds, *own, *asked)
    return [{"Type": "bind", "Source": bind.host, "Target": bind.inside, "ReadOnly": not bind.writable} for bind in binds]


def wanted_gpus(container: Container, common: PodSettings) -> int | str | tuple[str, ...]:
    """Number of devices, 'all', or a list of ids; 0: none. A CPU image gets devices only if the scenario requests them."""
    if container.gpus is not None:
        return container.gpus
    return common.gpus if common.accelerator != "cpu" else 0


def _devices(container: Container, common: PodSettings) -> dict[str, Any]:
    wanted = wanted_gpus(container, common)
    if not wanted:
        return {}
    if common.accelerator == "amd":
        return {
            "devices": ["/dev/kfd:/dev/kfd:rwm", "/dev/dri:/dev/dri:rwm"],
            "group_add": [str(group) for group in common.device_groups],
            "security_opt": ["seccomp=unconfined"],  # ROCm maps memory between processes with calls that the default profile denies
        }
    request: dict[str, Any] = {"driver": "", "capabilities": [["gpu"]]}
    request |= {"device_ids": list(wanted)} if isinstance(wanted, tuple) else {"count": -1 if wanted == "all" else wanted}
    return {"device_requests": [request]}


def _amd_devices(container: Container, common: PodSettings) -> dict[str, str]:
    """The variable that selects AMD devices in ROCr: the device files give access to all of them."""
    wanted = wanted_gpus(container, common)
    if common.accelerator != "amd" or not wanted or isinstance(wanted, str):
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


def _namespaces(container: Container, common: PodSettings, first: str | None) -> dict[str, Any]:
    """Network and shared memory: the first container owns them, the others join."""
    ipc: dict[str, Any] = {"ipc_mode": "host"}
    if container.ipc == "private":
        ipc = {"ipc_mode": f"container:{first}"} if first else {"ipc_mode": "shareable", "shm_size": in_bytes(container.shm)}
    if container.network == "host":
        return {**ipc, "network_mode": "host"}
    if first:
        return {**ipc, "network_mode": f"container:{first}"}
    published = {f"{port}/tcp": (container.address or LOOPBACK, None) for port in common.ports}  # None: the daemon chooses a free port
    return {**ipc, "network": common.network, "ports": published}


def docker_run(arguments: Mapping[str, Any], secrets: Collection[str] = ()) -> str:
    """The `docker run` command of these arguments, for people, without labels and values of secrets. The daemon chooses host ports."""
    (program,) = arguments["entrypoint"]
    shown = {name: None if name in secrets else value for name, value in arguments["environment"].items()}
    env = [f"--env={name}" if value is None else f"--env={name}={value}" for name, value in shown.items()]
    return shlex.join(
        ["docker", "run", "--rm", *_flags(arguments), *env, "--entrypoint", program, arguments["image"], *arguments["command"]]
    )


_PLAIN = {
    "name": "--name", "user": "--user", "working_dir": "--workdir", "cpuset_cpus": "--cpuset-cpus", "mem_limit": "--memory",
    "memswap_limit": "--memory-swap", "shm_size": "--shm-size", "ipc_mode": "--ipc", "network": "--network", "network_mode": "--network",
}  # fmt: skip


def _flags(arguments: Mapping[str, Any]) -> Iterator[str]:
    for key, flag in _PLAIN.items():
        if key in arguments:
            yield f"{flag}={arguments[key]}"
    if "nano_cpus" in arguments:
        yield f"--cpus={arguments['nano_cpus'] / 1e9:g}"
    if arguments.get("init"):
        yield "--init"
    for inside, (address, _) in arguments.get("ports", {}).items():
        yield f"--publish={address}::{inside.removesuffix('/tcp')}"
    for request in arguments.get("device_requests", ()):
        ids, count = request.get("device_ids"), request.get("count")
        yield f'--gpus="device={",".join(ids)}"' if ids else f"--gpus={'all' if count == -1 else count}"
    for device in arguments.get("devices", ()):
        yield f"--device={device}"
    for key, flag in (("group_add", "--group-add"), ("security_opt", "--security-opt")):
        for value in arguments.get(key, ()):
            yield f"{flag}={value}"
    for limit in arguments.get("ulimits", ()):
        yield f"--ulimit={limit['Name']}={limit['Soft']}:{limit['Hard']}"
    for mount in arguments["mounts"]:
        yield f"--mount=type=bind,source={mount['Source']},target={mount['Target']}{',readonly' if mount['ReadOnly'] else ''}"
