"""Facts of a server that another tool's file does not say, and the person who imports it does: engine, precision, hardware, parallelism."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from enginebench.domain import Deployment, Parallelism
from enginebench.domain.precisions import UNSTATED
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.catalogue import THIS_CPU, driver_names, need_device, read_hardware
from enginebench.physics.detect import stated_machine
from enginebench.records.importer import UNKNOWN_PRECISION

FACTS: Mapping[str, str] = {
    "engine": "the engine behind the server: vllm, sglang, ...",
    "engine_version": "its version",
    "flags": "what the server was started with",
    "hardware": "what it ran on: 4xh100",
    "precision": "of the weights: bf16, fp8, q4_k_m",
    "model": "the model's name, where the file has a path or an alias",
    "label": "a name for tables",
    "tp": "tensor parallelism", "pp": "pipeline stages", "dp_replicas": "whole copies", "attention_dp": "attention replicas",
    "ep": "expert parallelism",
}  # fmt: skip
"""Fact -> meaning."""
ASKED = ("engine", "engine_version", "flags", "hardware", "precision")
"""What a comparison needs to know of a server."""
_CLIENTS = ("openai", "openai-chat", "unknown", "")
"""Names of an API, which say nothing of the engine behind it."""
_PARALLEL = ("tp", "pp", "dp_replicas", "attention_dp", "ep")


def read_facts(given: Sequence[str]) -> dict[str, str]:
    """Facts from 'hardware=4xh100'. UserError for an unknown fact or a value that cannot be one."""
    facts: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value.strip():
            raise UserError(f"'{text}' is no fact", advice="write for example --set hardware=4xh100 --set engine=vllm")
        if name not in FACTS:
            raise UserError(f"unknown fact '{name}'", advice=did_you_mean(name, FACTS))
        if name in _PARALLEL and not (value.isdigit() and int(value) >= 1):
            raise UserError(f"must be a whole number of 1 or more, not '{value}'", key=name)
        if name == "hardware":
            stated_machine(value)
        facts[name] = value.strip()
    return facts


def known_hardware(stated: Collection[str]) -> str | None:
    """The one hardware that files state ('8xh100', '2xNVIDIA H100 80GB HBM3'), in our notation; None where they state none, or several, or
    no device of the catalogue.
    """
    if len(stated) != 1:
        return None
    (text,) = stated
    found = re.match(r"(?:(\d+)\s*x\s*)?(.+)$", text.strip(), re.IGNORECASE)
    count, name = (found[1] or "1", found[2]) if found else ("1", text)
    drivers = driver_names()
    devices = drivers.get(name.lower()) or drivers.get(name.lower().replace("-", " ")) or (name,)
    if len(devices) != 1 or int(count) < 1 or devices[0].lower() == THIS_CPU:
        return None
    try:
        need_device(devices[0])
        return f"{int(count)}x{read_hardware(devices[0]).name}"
    except UserError:
        return None


def apply(deployment: Deployment, facts: Mapping[str, str]) -> Deployment:
    """The deployment with these facts. Version and flags are options of it, so that other ones are another deployment."""
    named = {name: facts[name] for name in ("engine", "precision", "model", "label") if name in facts}
    degrees = {name: int(facts[name]) for name in _PARALLEL if name in facts}
    options = {name: facts[name] for name in ("engine_version", "flags") if name in facts}
    if "model" in facts:
        named["checkpoint"] = facts["model"]
    spread: Parallelism = replace(deployment.parallelism, **degrees)
    return replace(deployment, **named, parallelism=spread, options={**deployment.options, **options})  # type: ignore[arg-type]  # texts


def missing(deployment: Deployment, facts: Mapping[str, str]) -> tuple[str, ...]:
    """The facts that nobody stated."""
    known = {
        "engine": deployment.engine not in _CLIENTS, "precision": deployment.precision not in (UNKNOWN_PRECISION, UNSTATED),
        "engine_version": "engine_version" in facts, "flags": "flags" in facts, "hardware": "hardware" in facts,
    }  # fmt: skip
    return tuple(name for name in ASKED if not known[name])
