"""Reads in which precision a checkpoint is stored: the file type of a GGUF header, or the quantization and the tensors of a folder.

Reads headers only. Does not know what an engine makes of them while it loads.
"""

import json
from collections.abc import Mapping
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
METHODS = {
    **{name: name for name in ("fp8", "mxfp4", "mxfp8", "awq", "gptq", "w4afp8", "nvfp4")}, "fbgemm_fp8": "fp8"
}  # fmt: skip
"""`quant_method` of a quantization_config -> precision, for methods that have one."""
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("FP8", "FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN"), ("fp8",)),
    **dict.fromkeys(("NVFP4", "NVFP4_AWQ", "W4A8_NVFP4_FP8"), ("nvfp4",)),
    **dict.fromkeys(("MXFP4", "W4A8_MXFP4_FP8"), ("mxfp4",)),
    **dict.fromkeys(("INT8_SQ", "W8A8_SQ_PER_CHANNEL", "W8A16"), ("int8",)),
    "MXFP8": ("mxfp8",), "W4A16_AWQ": ("awq",), "W4A16": ("int4",), "W4A8_AWQ": ("w4a8", "w4afp8"),
}  # fmt: skip
"""ModelOpt's `quant_algo` -> the engines' names of the precision. Source: ModelOpt 0.39."""


def quantization(config: Mapping[str, Any], folder: Path | None) -> dict[str, Any] | None:
    """How the weights of a checkpoint are quantized, from its config.json or else from ModelOpt's hf_quant_config.json beside it.

    None where nothing says that they are; ModelOpt may quantize the KV cache alone. UserError for a damaged file.
    """
    inner = config.get("text_config")
    for owner in (config, inner if isinstance(inner, dict) else {}):
        found = owner.get("quantization_config") or owner.get("compression_config")
        if isinstance(found, dict) and (found.get("quant_method") != "modelopt" or "quant_algo" in found):
            return found
    file = folder / "hf_quant_config.json" if folder is not None else None
    if file is None or not file.is_file():
        return None
    beside = _json(file).get("quantization")
    if not isinstance(beside, dict):
        raise UserError("has no 'quantization'", file=file, advice="fetch the file again")
    return {"quant_method": "modelopt", **beside} if beside.get("quant_algo") or beside.get("quantized_layers") else None


def group_precision(weights: Mapping[str, Any]) -> str:
    """The precision of a group of compressed-tensors, from its `weights`."""
    wide, size = weights.get("num_bits", 16), weights.get("group_size")
    if weights.get("type", "int") != "float":
        return f"int{wide}"
    return ("nvfp4" if size == 16 else "mxfp4") if wide == 4 else "mxfp8" if size == 32 else "fp8"


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
    if found := quantization(config, checkpoint):
        return _quantized(found)
    if isinstance(mlx := config.get("quantization"), dict):
        mode = mlx.get("mode", "affine")
        return (f"{mlx.get('bits')}bit" if mode == "affine" else str(mode),)
    stored = _of_tensors(checkpoint)
    inner = config.get("text_config")
    owners = (config, inner if isinstance(inner, dict) else {})
    named = next((owner[key] for owner in owners for key in ("dtype", "torch_dtype") if owner.get(key)), None)
    return tuple(filter(None, [stored or from_torch(str(named) if named else None)]))


def _quantized(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The precisions that a quantization means; empty for methods that hold several."""
    method, bits = str(config.get("quant_method", "")), config.get("bits", config.get("w_bit", 4))
    if method == "exl3" and isinstance(bits, int | float):
        return (f"exl3_{round(bits * 4) / 4:g}bpw",)
    if method in ("awq", "gptq"):
        return (method, f"int{bits}")
    if method == "bitsandbytes":
        return ("int4" if config.get("load_in_4bit") or config.get("_load_in_4bit") else "int8",)
    if "quant_algo" in config:
        return ALGORITHMS.get(str(config["quant_algo"]).upper(), ())
    if isinstance(groups := config.get("config_groups"), dict):
        weights = [group.get("weights") or {} for group in groups.values() if isinstance(group, dict)]
        kinds = {group_precision(each) for each in weights if isinstance(each, dict)}
        return tuple(kinds) if len(kinds) == 1 else ()
    return (METHODS[method],) if method in METHODS else ()


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
    except (OSError, ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError) as error:
        raise UserError(f"the safetensors header is damaged ({type(error).__name__})", file=file, advice="fetch the file again") from None
    return _DTYPES.get(max(sizes, key=lambda dtype: sizes[dtype])) if sizes else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read: {' '.join(str(error).split())}", file=file) from None
    return found if isinstance(found, dict) else {}
