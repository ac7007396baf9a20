"""Reads in which precision a checkpoint is stored: the file type of a GGUF header, or the quantization and the tensors of a folder.

Reads headers only. Does not know what an engine makes of them while it loads.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from enginebench.checkpoints.gguf_metadata import read_metadata
from enginebench.domain.precisions import from_torch
from enginebench.errors import UserError

_FILE_TYPES = (
    "f32", "f16", "q4_0", "q4_1", None, None, None, "q8_0", "q5_0", "q5_1", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m",
    "q5_k_s", "q5_k_m", "q6_k", "iq2_xxs", "iq2_xs", "q2_k_s", "iq3_xs", "iq3_xxs", "iq1_s", "iq4_nl", "iq3_s", "iq3_m", "iq2_s", "iq2_m",
    "iq4_xs", "iq1_m", "bf16", None, None, None, "tq1_0", "tq2_0", "mxfp4", "nvfp4",
)  # fmt: skip
"""llama.cpp's `general.file_type` (enum llama_ftype) -> precision."""
_DTYPES = {"BF16": "bf16", "F16": "f16", "F32": "f32", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
"""safetensors' dtype -> precision. Integers are packed, and say nothing."""
_METHODS = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "mxfp4", "mxfp8": "mxfp8", "awq": "awq", "gptq": "gptq"}
_ALGORITHMS = {"FP8": "fp8", "NVFP4": "nvfp4", "MXFP8": "mxfp8", "W4A8_AWQ": "w4a8", "W4A16_AWQ": "awq", "INT8_SQ": "int8"}
"""`quant_method` of quantization_config, and ModelOpt's `quant_algo` -> precision."""


def stored_precisions(checkpoint: Path) -> tuple[str, ...]:
    """The names of the precision of a GGUF file or a folder, the best first; empty if its header does not say. Raises UserError."""
    modified = max((file.stat().st_mtime_ns for file in (checkpoint, checkpoint / "config.json") if file.exists()), default=0)
    return _read(checkpoint, modified)


@lru_cache(maxsize=256)
def _read(checkpoint: Path, _modified: int) -> tuple[str, ...]:
    if not checkpoint.is_dir():
        number = read_metadata(checkpoint, ("general.file_type",)).get("general.file_type")
        name = _FILE_TYPES[number] if isinstance(number, int) and 0 <= number < len(_FILE_TYPES) else None
        return (name,) if name else ()
    config = _json(checkpoint / "config.json")
    inner = config.get("text_config")
    text: dict[str, Any] = inner if isinstance(inner, dict) else {}
    for owner in (config, text):
        if isinstance(found := owner.get("quantization_config") or owner.get("compression_config"), dict):
            return _quantized(found, checkpoint)
    if isinstance(mlx := config.get("quantization"), dict):
        mode = mlx.get("mode", "affine")
        return (f"{mlx.get('bits')}bit" if mode == "affine" else str(mode),)
    if isinstance(found := _json(checkpoint / "hf_quant_config.json").get("quantization"), dict) and found.get("quant_algo"):
        return _algorithm(found)
    stored = _of_tensors(checkpoint)
    named = next((owner[key] for owner in (config, text) for key in ("dtype", "torch_dtype") if owner.get(key)), None)
    return tuple(filter(None, [stored or from_torch(str(named) if named else None)]))


def _quantized(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """The precisions that a quantization_config means; empty for methods that hold several."""
    method, bits = str(config.get("quant_method", "")), config.get("bits", config.get("w_bit", 4))
    if method == "exl3" and isinstance(bits, int | float):
        return (f"exl3_{round(bits * 4) / 4:g}bpw",)
    if method in ("awq", "gptq"):
        return (method, f"int{bits}")
    if method == "bitsandbytes":
        return ("int4" if config.get("load_in_4bit") or config.get("_load_in_4bit") else "int8",)
    if method == "modelopt" or "quant_algo" in config:
        found = _json(folder / "hf_quant_config.json").get("quantization")
        return _algorithm(config if "quant_algo" in config else found if isinstance(found, dict) else {})
    if method == "compressed-tensors":
        groups = config.get("config_groups")
        weights = [group.get("weights") or {} for group in groups.values()] if isinstance(groups, dict) else []
        kinds = {(str(each.get("type")), each.get("num_bits"), each.get("group_size")) for each in weights}
        if len(kinds) != 1:
            return ()
        ((kind, wide, group),) = kinds
        if kind == "float" and wide == 4:
            return ("nvfp4" if group == 16 else "mxfp4",)
        return ("fp8",) if kind == "float" else (f"int{wide}",)
    return (_METHODS[method],) if method in _METHODS else ()


def _algorithm(config: dict[str, Any]) -> tuple[str, ...]:
    name = _ALGORITHMS.get(str(config.get("quant_algo")).upper())
    return (name,) if name else ()


def _of_tensors(folder: Path) -> str | None:
    """The precision of most bytes of the first safetensors file."""
    file = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        sizes: dict[str, int] = {}
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                sizes[tensor["dtype"]] = sizes.get(tensor["dtype"], 0) + end - start
    except (OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        raise UserError(f"the safetensors header is damaged ({type(error).__name__})", file=file, advice="fetch the file again") from None
    return _DTYPES.get(max(sizes, key=lambda dtype: sizes[dtype])) if sizes else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read: {' '.join(str(error).split())}", file=file) from None
    return found if isinstance(found, dict) else {}
