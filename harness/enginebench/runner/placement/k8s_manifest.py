"""The objects of Kubernetes that measure a unit: a ConfigMap with the unit, and a Job whose pod holds the client and the engine. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from enginebench.errors import UserError
from enginebench.records.schema import dump
from enginebench.runner.placement.k8s_commands import RUN, UNIT
from enginebench.runner.placement.unit_data import Unit
from enginebench.runtime.container.neighbour import SUPERVISOR, VARIABLE

SETTINGS = {
    "namespace": "the namespace; default: that of the context",
    "context": "the context of kubectl's configuration; default: the current one",
    "image": "the image of the client: Python with the same version of enginebench, and whatever engine runs as a process",
    "registry": "where the images of `bench images build` were pushed to; not needed for deployments that name `container.image`",
    "weights": "a PersistentVolumeClaim with checkpoints, mounted at /weights, where the cache of Hugging Face's hub is, too",
    "secret": "a Secret whose keys become environment variables of client and engine: HF_TOKEN",
    "pull_secret": "the Secret for pulling images",
    "service_account": "the service account of the pods",
    "time_s": "seconds after which a unit is ended",
    "hold_s": "seconds that a pod waits for its results to be fetched; default: a day",
    "most": "units that are in the cluster at once; default: 50",
    "poll_s": "seconds between two looks at the pods; default: 5",
}
"""Keys of `--place` -> their meaning."""
SHM = "/dev/shm"  # noqa: S108  # through which ranks communicate
SHARED, WEIGHTS, GIVEN = "/enginebench", "/weights", "/enginebench-unit"
INTO = f"{SHARED}/unit"
MOST_BYTES = 1_000_000
"""Of a unit: a ConfigMap holds 1 MiB."""
_HOLD_S = 86_400
_CLIENT = """set -u
cd {shared} || exit 1
(beat=0; while :; do beat=$((beat + 1)); echo $beat >alive.part && mv alive.part alive; sleep 5; done) &
beats=$!
python3 -m enginebench.runner.placement.unit {given}/unit.json --into {into} --node "$NODE_NAME" &
unit=$!
trap 'kill -TERM $unit 2>/dev/null' TERM INT
wait $unit; code=$?
while kill -0 $unit 2>/dev/null; do wait $unit; code=$?; done
[ -e {into}/ended.json ] && code=0
waited=0
while [ $code -eq 0 ] && [ ! -e collected ] && [ $waited -lt {hold_s} ]; do sleep 1; waited=$((waited + 1)); done
: >done
kill $beats 2>/dev/null
exit $code
"""


@dataclass(frozen=True)
class Engine:
    """What the container of an engine needs."""

    image: str
    resource: str = ""
    """'nvidia.com/gpu'; empty for an image that uses no device."""
    gpus: int = 0


def name_of(unit: Unit) -> str:
    """The name of a unit's objects: the same for the same unit of the same run."""
    return f"bench-{hashlib.sha256(f'{unit.run}/{unit.id}'.encode()).hexdigest()[:16]}"


def label(text: str) -> str:
    """A text as the value of a label: at most 63 characters, with a letter or digit at both ends."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.") or "none"


def objects(unit: Unit, engine: Engine | None, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """engine: of `runtime: docker`; None where the client's container starts the engine, or it runs elsewhere. UserError for a unit that
    is too large, and for a client without an image."""
    text = dump(unit)
    if len(text) > MOST_BYTES:
        advice = "leave data sets out of the scenario's folder: put them on the volume of --place weights=..., and write /weights/..."
        raise UserError(f"{unit.name}: a unit of {len(text):,} bytes does not fit a ConfigMap ({MOST_BYTES:,} at most)", advice=advice)
    about = {"name": name_of(unit), "labels": _labels(unit), "annotations": {"enginebench/name": unit.name}}
    if settings.get("namespace"):
        about["namespace"] = settings["namespace"]
    client = _CLIENT.format(shared=SHARED, given=GIVEN, into=INTO, hold_s=settings.get("hold_s") or _HOLD_S)
    data = {"unit.json": text if isinstance(text, str) else text.decode(), "client.sh": client, "supervise.sh": SUPERVISOR.read_text()}
    spec: dict[str, Any] = {"backoffLimit": 0, "ttlSecondsAfterFinished": 86_400, "template": _template(unit, engine, settings)}
    if settings.get("time_s"):
        spec["activeDeadlineSeconds"] = int(settings["time_s"])
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec},
    ]


def _labels(unit: Unit) -> dict[str, str]:
    return {"app.kubernetes.io/name": "enginebench", RUN: label(unit.run), UNIT: label(unit.id)}


def _template(unit: Unit, engine: Engine | None, settings: Mapping[str, str]) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "shareProcessNamespace": True,  # so that the client sees which process listens, and what the engine uses
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "containers": [_client(unit, engine, settings), *([_engine(unit, engine, settings)] if engine else [])],
        "volumes": [
            {"name": "shared", "emptyDir": {}},
            {"name": "unit", "configMap": {"name": name_of(unit)}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _quantity(unit.deployment.container.shm)}},
            *([{"name": "weights", "persistentVolumeClaim": {"claimName": settings["weights"]}}] if settings.get("weights") else []),
        ],
    }
    if unit.deployment.node:
        spec["nodeSelector"] = {"kubernetes.io/hostname" if key == "name" else key: its for key, its in unit.deployment.node.items()}
    if resource := engine.resource if engine else _resource(unit):
        spec["tolerations"] = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]  # nodes with devices keep others away
    if unit.exclusive:
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_apart()]}}
    if settings.get("service_account"):
        spec["serviceAccountName"] = settings["service_account"]
    if settings.get("pull_secret"):
        spec["imagePullSecrets"] = [{"name": settings["pull_secret"]}]
    return {"metadata": {"labels": _labels(unit)}, "spec": spec}


def _apart() -> dict[str, Any]:
    """No two units on one node."""
    return {"labelSelector": {"matchLabels": {"app.kubernetes.io/name": "enginebench"}}, "topologyKey": "kubernetes.io/hostname"}


def _client(unit: Unit, engine: Engine | None, settings: Mapping[str, str]) -> dict[str, Any]:
    if not settings.get("image"):
        raise UserError(
            "--on k8s needs an image with enginebench for its clients", advice="build one as docs/clusters.md shows: --place image=..."
        )
    env: list[dict[str, Any]] = [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    env += [{"name": "HF_HOME", "value": f"{WEIGHTS}/huggingface"}] if settings.get("weights") else []
    if engine:
        env += [{"name": VARIABLE, "value": SHARED}, {"name": "ENGINEBENCH_NEIGHBOUR_IMAGE", "value": engine.image}]
    found = {"name": "client", "image": settings["image"], "command": ["sh", f"{GIVEN}/client.sh"], "env": env, **_common(settings)}
    if engine is None:
        found |= _resources(_resource(unit), unit.gpus if _resource(unit) else 0, unit.cores or None, None)
    return found


def _engine(unit: Unit, engine: Engine, settings: Mapping[str, str]) -> dict[str, Any]:
    container = unit.deployment.container
    env = [{"name": "HF_HOME", "value": f"{WEIGHTS}/huggingface"}] if settings.get("weights") else []
    return {
        "name": "engine", "image": engine.image, "command": ["sh", f"{GIVEN}/supervise.sh", SHARED], "env": env, **_common(settings),
        **_resources(engine.resource, engine.gpus, container.cpus or unit.cores or None, container.memory),
    }  # fmt: skip


def _common(settings: Mapping[str, str]) -> dict[str, Any]:
    mounts = [{"name": "shared", "mountPath": SHARED}, {"name": "unit", "mountPath": GIVEN}, {"name": "shm", "mountPath": SHM}]
    mounts += [{"name": "weights", "mountPath": WEIGHTS}] if settings.get("weights") else []
    secret = {"envFrom": [{"secretRef": {"name": settings["secret"]}}]} if settings.get("secret") else {}
    return {"volumeMounts": mounts, **secret}


def _resource(unit: Unit) -> str:
    """The device resource of an engine that the client's container starts."""
    return "nvidia.com/gpu" if unit.needs_gpus and unit.deployment.runtime != "attach" else ""


def _resources(resource: str, gpus: int, cpus: float | None, memory: str | None) -> dict[str, Any]:
    """Requests are what limits are, so that the pod's processors and memory are its own."""
    wanted = {resource: str(gpus)} if resource and gpus else {}
    wanted |= {"cpu": f"{cpus:.0f}" if cpus == int(cpus) else f"{cpus * 1000:.0f}m"} if cpus else {}
    wanted |= {"memory": _quantity(memory)} if memory else {}
    return {"resources": {"limits": wanted, "requests": wanted}} if wanted else {}


def _quantity(size: str) -> str:
    """'16GiB' -> '16Gi'."""
    return size.removesuffix("B")
