"""The bits of each role in a quantised checkpoint, by its `quantization_config` or ModelOpt's `hf_quant_config.json`.

Reads methods with one precision (fp8, awq, gptq, mxfp4, ...), the groups of compressed-tensors, ModelOpt's mixed precision, and the modules
that are left out. A role of which some layers are left out has the mean. Sources: the configurations of compressed-tensors 0.13, ModelOpt
0.39 and transformers 5.23.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from enginebench.checkpoints.stored_precision import ALGORITHMS, METHODS, group_precision, quantization
from enginebench.errors import UserError
from enginebench.physics.geometry import Role
from enginebench.physics.precision import Precision, precision

Config = Mapping[str, Any]

_MODULES: Mapping[Role, tuple[str, ...]] = {
    Role.ATTENTION: ("self_attn.q_proj", "self_attn.o_proj"),
    Role.KEYS: ("self_attn.k_proj", "self_attn.v_proj"),
    Role.RECURRENT: ("linear_attn.in_proj", "linear_attn.out_proj"),
    Role.LATENT: ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
    Role.DENSE: ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    Role.SHARED: ("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"),
    Role.EXPERT: ("mlp.experts.0.gate_proj", "mlp.experts.0.up_proj", "mlp.experts.0.down_proj"),
}
"""Modules of a layer with the weights of a role, as most models of transformers call them."""
_OTHER_NAMES = (
    ("linear_attn", "mixer"),
    ("linear_attn", "mamba"),
    ("mlp.experts", "block_sparse_moe.experts"),
    ("mlp.", "feed_forward."),
    ("shared_experts", "shared_expert"),
)
_LEFT_OUT = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "exclude")


@dataclass(frozen=True)
class _Rule:
    """The precision of the modules that match any of the targets."""

    targets: tuple[str, ...]
    bits: float
    name: str


def stored_precision(config: Config, folder: Path | None, layers: int) -> Precision:
    """The precision of a checkpoint, from its config.json and the file beside it. UserError for a method that is unknown."""
    text = config.get("text_config", config)
    found = quantization(config, folder)
    if found is None:
        dtype = next((each[key] for each in (text, config) for key in ("dtype", "torch_dtype") if each.get(key)), "bfloat16")
        return precision({"float32": "f32", "float16": "f16"}.get(str(dtype).removeprefix("torch."), "bf16"))
    try:
        return _stored(found, layers)
    except (TypeError, AttributeError, IndexError, re.error) as error:
        raise UserError(f"its quantization_config is not understood ({error})", key="quantization_config", advice=_NAME_ONE) from error


_NAME_ONE = "name a precision"


def _stored(found: Config, layers: int) -> Precision:
    rules = _rules(found)
    left_out = [str(each) for key in _LEFT_OUT for each in found.get(key) or ()]
    whole = precision(rules[0].name)
    if "config_groups" in found or "quant_algo" in found:
        of_role = dict.fromkeys(_MODULES, rules)
        head = {Role.HEAD: _bits("lm_head", rules, left_out)}
    else:  # the method says which roles it quantises
        inside = whole.bits[Role.EXPERT]
        of_role = {role: [replace(rules[0], bits=rules[0].bits if whole.bits[role] == inside else whole.bits[role])] for role in _MODULES}
        head = {}
    bits = {role: _mean(role, its, left_out, layers) for role, its in of_role.items()}
    return replace(whole, bits={**whole.bits, **bits, **head})


def _rules(found: Config) -> list[_Rule]:
    """The precisions of a configuration, that of most weights first."""
    method = str(found.get("quant_method", "")).lower()
    if isinstance(layers := found.get("quantized_layers"), Mapping):  # ModelOpt's MIXED_PRECISION
        rules = [_named(_algorithm(each), (name,), method) for name, each in layers.items()]
        return sorted(rules, key=lambda rule: "experts" not in rule.targets[0])
    if "quant_algo" in found:
        return [_named(_algorithm(found), ("*",), str(found["quant_algo"]))]
    if isinstance(groups := found.get("config_groups"), Mapping):
        rules = [_group(each) for each in groups.values()]
        return sorted(rules, key=lambda rule: not any(_matches(target, "model.layers.1.mlp.experts.0.up_proj") for target in rule.targets))
    if method == "bitsandbytes":
        four = found.get("load_in_4bit") or found.get("_load_in_4bit")
        return [_Rule(("*",), 4.5, "int4") if four else _Rule(("*",), 8.0, "int8")]
    if method in ("awq", "gptq") and (wide := found.get("bits", found.get("w_bit", 4))) != 4:
        return [_Rule(("*",), _checked(wide) + 0.15625, method)]
    return [_named(METHODS.get(method), ("*",), method)]


def _algorithm(found: Config) -> str | None:
    """The precision of ModelOpt's `quant_algo`; None for an unknown one."""
    return next(iter(ALGORITHMS.get(str(found.get("quant_algo")).upper(), ())), None)


def _named(name: str | None, targets: tuple[str, ...], written: str) -> _Rule:
    if name is None:
        raise UserError(f"unknown quantisation '{written}'", key="quant_method", advice=_NAME_ONE)
    return _Rule(targets, precision(name).bits[Role.EXPERT], name)


def _group(group: Config) -> _Rule:
    """One group of compressed-tensors: bits of a weight with its scale, 16 bits wide unless the format is a microscaling one."""
    weights = group.get("weights") or {}
    wide, kind, size = weights.get("num_bits", 16), weights.get("type", "int"), weights.get("group_size")
    targets = tuple(map(str, group.get("targets") or ("Linear",)))
    if kind == "float":
        return _named(group_precision(weights), targets, f"{wide}-bit float")
    scale = (16 if weights.get("symmetric", True) else 16 + wide) / size if isinstance(size, int) and size > 0 else 0.0
    return _Rule(targets, _checked(wide) + scale, "int8" if wide == 8 else "int4")


def _checked(bits: object) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 32:
        raise TypeError(f"{bits!r} bits")
    return bits


def _mean(role: Role, rules: Sequence[_Rule], left_out: Sequence[str], layers: int) -> float:
    """Bits of a role over its modules in all layers."""
    found = [_bits(f"model.layers.{i}.{module}", rules, left_out) for i in range(layers) for module in _MODULES[role]]
    return sum(found) / len(found)


def _bits(module: str, rules: Sequence[_Rule], left_out: Sequence[str]) -> float:
    names = [module, *(module.replace(ours, theirs) for ours, theirs in _OTHER_NAMES if ours in module)]
    if any(_matches(pattern, name) for pattern in left_out for name in names):
        return 16.0
    matching = (rule.bits for rule in rules if any(_matches(target, name) for target in rule.targets for name in names))
    return next(matching, 16.0)


def _matches(pattern: str, name: str) -> bool:
    """'Linear' (every module), 're:.*experts.*', 'lm_head', 'model.layers.0.self_attn', or with '*'; whole parts of a dotted name."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return pattern in ("Linear", "*") or fnmatchcase(f".{name}.", f"*.{pattern.strip('.')}.*") or fnmatchcase(name, pattern)
