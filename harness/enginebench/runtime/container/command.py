"""Formats the SDK arguments of a container as a `docker run` command for people. The command is never executed."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any


def docker_run(arguments: Mapping[str, Any], secrets: Collection[str] = ()) -> str:
    """The command in one line, without labels and without values of secrets. Host ports are empty: the daemon chooses them."""
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
