"""Facts of a server that another tool's file does not say, and the person who imports it does: engine, precision, hardware, parallelism."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from enginebench.domain import Deployment, Parallelism
from enginebench.domain.precisions import UNSTATED
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.catalogue import read_hardware
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
            read_hardware(value)
        facts[name] = value.strip()
    return facts


def apply(deployment: Deployment, facts: Mapping[str, str]) -> Deployment:
    """The deployment with these facts. Version and flags are options of it, so that other ones are another deployment."""
    named = {name: facts[name] for name in ("engine", "precision", "model", "label") if name in facts}
    degrees = {name: int(facts[name]) for name in _PARALLEL if name in facts}
    options = {name: facts[name] for name in ("engine_version", "flags") if name in facts}
    spread: Parallelism = replace(deployment.parallelism, **degrees)
    return replace(deployment, **named, parallelism=spread, options={**deployment.options, **options})  # type: ignore[arg-type]  # texts


def missing(deployment: Deployment, facts: Mapping[str, str]) -> tuple[str, ...]:
    """The facts that nobody stated."""
    known = {
        "engine": deployment.engine not in _CLIENTS, "precision": deployment.precision not in (UNKNOWN_PRECISION, UNSTATED),
        "engine_version": "engine_version" in facts, "flags": "flags" in facts, "hardware": "hardware" in facts,
    }  # fmt: skip
    return tuple(name for name in ASKED if not known[name])
