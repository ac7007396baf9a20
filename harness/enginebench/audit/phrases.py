"""Figures in the words of a text: 'TP=4 + disaggregated prefill', 'H100 needs 4', 'the top 2-3 of 16 experts cover 60-80 %'.

Only what the words state: a phrase that is not recognised gives nothing. Does not know: models, devices, verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

ENGINES = {
    "llama.cpp": "llamacpp", "llama cpp": "llamacpp", "tensorrt-llm": "trtllm", "trt-llm": "trtllm", "tensorrt llm": "trtllm",
    "exllama": "exllamav3", "mlx": "mlx", "mlx-lm": "mlx", "hf transformers": "transformers",
}  # fmt: skip
_SHORT = {"q2": "q2_k", "q3": "q3_k_m", "q4": "q4_k_m", "q5": "q5_k_m", "q6": "q6_k", "q8": "q8_0"}
"""What a bare 'q4' usually means."""
_DEGREE = {"tp": "tp", "pp": "pp", "ep": "ep", "dp": "dp_replicas"}
_MOST = 1000
"""Characters of a sentence that are read."""
_NOTHING = frozenset({"", "unstated", "unknown", "not stated", "n/a", "-", "?"})
_DEVICE = r"(?P<device>[a-z]+[a-z0-9]*(?:[ -](?:ultra|max|pro|sxm|pcie|nvl|\d{4}))*)"
_SIZE = r"(?:\s*\(\d+\s*gb\))?"
_FITS = re.compile(
    rf"\b{_DEVICE}{_SIZE}\s+(?:runs|fits|holds)\b[^,;.]*?\b(?:on|with)\s+(?P<count>\d+)\s+(?:gpus?|devices|cards)", re.IGNORECASE
)
_NEEDS = re.compile(rf"\b(?!and\b){_DEVICE}{_SIZE}\s+needs\s+(?P<count>\d+)(?!\s*(?:x|gb)|\d|\.)", re.IGNORECASE)
_NEEDS_OF = re.compile(rf"\bneeds\s+(?:at least\s+)?(?P<count>\d+)\s*x?\s*{_DEVICE}", re.IGNORECASE)
_IN_GB = re.compile(r"\b(?:fits|runs)\s+(?:on|in|within)\s+(?:an?|one|single|\s)*(?P<gb>\d+(?:\.\d+)?)\s*gb", re.IGNORECASE)
_HOT = re.compile(r"top[- ](\d+)(?:\s*(?:-|to|or)\s*(\d+))?.*?\bexperts?\b.*?(\d+)(?:\s*%?\s*(?:-|to)\s*(\d+))?\s*%", re.IGNORECASE)


def engine_of(text: str) -> dict[str, str]:
    """'vllm 0.8' -> engine and engine_version."""
    found = re.fullmatch(r"(.+?)\s+v?(\d[\w.]*)", text.strip())
    name = (found[1] if found else text).strip().lower()
    return {"engine": ENGINES.get(name, name)} | ({"engine_version": found[2]} if found else {})


_CHANNELS = {"single": 1, "dual": 2, "two": 2, "quad": 4, "four": 4, "six": 6, "eight": 8, "twelve": 12}
_MEMORY = re.compile(rf"\b(\d+|{'|'.join(_CHANNELS)})[- ]?channels?(?: of)?[ -]*(?:lp)?ddr\d[a-z]?[- ]?(\d{{4,5}})", re.IGNORECASE)


def bandwidth_of(text: str) -> float | None:
    """GB/s of '8-channel DDR5-4800': channels x 8 bytes x transfers."""
    found = _MEMORY.search(text)
    if found is None:
        return None
    channels = int(found[1]) if found[1].isdigit() else _CHANNELS[found[1].lower()]
    return channels * 8 * int(found[2]) / 1000


_BRANDS = re.compile(
    r"\b(?:macbook (?:pro|air)|mac (?:studio|mini|pro)|imac|nvidia|geforce|apple|amd|instinct|radeon|intel)\b\s*", re.IGNORECASE
)


def hardware_of(text: str) -> str:
    """'1x NVIDIA GeForce RTX 4090' -> '1x RTX 4090'; 'MacBook Pro M4 Max 128GB' -> 'M4 Max 128GB'."""
    return _BRANDS.sub("", text).strip() or text


def ratio_of(says: str) -> dict[str, Any]:
    """'13% faster' -> stated 1.13; '15-25 %' -> stated_range; '2.3x' -> stated 2.3."""
    if found := re.search(r"(\d+(?:\.\d+)?)(?:\s*%?\s*(?:-|to)\s*(\d+(?:\.\d+)?))?\s*%", says):
        low, high = (1 + float(each or found[1]) / 100 for each in found.groups())
    elif found := re.search(r"(\d+(?:\.\d+)?)(?:\s*x?\s*(?:-|to)\s*(\d+(?:\.\d+)?))?\s*(?:x\b|times)", says):
        low, high = float(found[1]), float(found[2] or found[1])
    else:
        return {}
    return {"stated": low} if low == high else {"stated_range": [low, high]}


def is_stated(value: object) -> bool:
    return value is not None and str(value).strip().lower() not in _NOTHING


def precision_of(text: str) -> str:
    """'FP16' -> 'fp16', 'exl3-3.5bpw' -> 'exl3_3.5bpw', 'q4' -> 'q4_k_m'."""
    word = text.strip().lower()
    return _SHORT.get(word, word.replace("exl3-", "exl3_"))


def setup_of(config: str, devices: int) -> dict[str, Any]:
    """The keys of a speed that the words of its configuration state. devices: that the hardware has."""
    words = config[:_MOST].lower()
    out: dict[str, Any] = {_DEGREE[name]: int(count) for name, count in re.findall(r"\b(tp|pp|ep|dp)\s*=\s*(\d+)", words)}
    if "expert parallel" in words and "ep" not in out:
        out["ep"] = devices
    if "ep" in out:
        out.setdefault("tp", out["ep"])
    if "disaggregated" in words:  # a prefill and a decode side share the devices, and each has a copy of the weights
        side = max(1, devices // 2)
        out |= {"copies": 2, "options": {"disaggregated": {"prefill": 1, "decode": 1}}}
        out |= {name: min(out[name], side) for name in ("tp", "ep") if name in out}
    if re.search(r"\b(single|one) (request|stream|user)\b|\bbatch(?: size)?\s*(?:of\s*)?1\b", words):
        out["concurrency"] = 1
    elif found := re.search(
        r"\bbatch(?: size)?\s*(?:of|=)?\s*(\d+)|\b(\d+) (?:concurrent|streams|users)|\bconcurrency\s*=?\s*(\d+)", words
    ):
        out["concurrency"] = int(next(filter(None, found.groups())))
    if re.search(r"\b(?:projected|estimated?|theoretical|simulated|modell?ed)\b", words):
        out["projected"] = True
    if "speculative" in words:
        out.setdefault("options", {})["speculative"] = True
    return out | _place(words)


def _place(words: str) -> dict[str, Any]:
    """Where the weights are, as far as the words state it."""
    if re.search(r"\bfull(?:y)? (?:on )?(?:the )?gpu\b|\ball (?:layers )?on (?:the )?gpu|\bfits on \d+ gpu", words):
        return {"placement": "devices"}
    away = r"offload|\b(?:cpu|system|host) (?:ram|memory)|\bexperts (?:\w+ )?(?:on|in) (?:the )?(?:cpu|host|ram)"
    if re.search(r"\bno (?:\w+ )?offload", words) or not re.search(away, words):
        return {}
    found, host = re.search(r"\bgpu\s*\(~?(\d+(?:\.\d+)?)\s*gb\)", words), bandwidth_of(words)
    out: dict[str, Any] = {"placement": "host"} | ({"device_gb": float(found[1])} if found else {})
    if found is None and re.search(r"\b(?:all )?experts (?:\w+ )?(?:on|in) (?:the )?(?:cpu|host|ram)", words):
        out["options"] = {"cpu_moe": True}
    return out | ({"host_gb_s": host} if host else {})


def memory_of(says: str) -> Iterator[dict[str, Any]]:
    """What a sentence states about memory: `hardware` with `fits` or `needs`, or `gb` with `fits`."""
    says = says[:_MOST]
    for found in _FITS.finditer(says):
        yield {"hardware": f"{found['count']}x{_name(found['device'])}", "fits": True}
    for found in (*_NEEDS.finditer(says), *_NEEDS_OF.finditer(says)):
        if found["device"].lower() not in ("gb", "gpu", "gpus", "it", "model"):
            yield {"hardware": _name(found["device"]), "needs": int(found["count"])}
    for found in _IN_GB.finditer(says):
        yield {"gb": float(found["gb"]), "fits": True}


def hot_of(says: str) -> dict[str, Any] | None:
    """'top 2-3 of 16 experts ... 60-80 %' -> experts [2, 3], share [0.6, 0.8]."""
    found = _HOT.search(says[:_MOST])
    if found is None:
        return None
    few, many, low, high = found.groups()
    return {"experts": [float(few), float(many or few)], "share": [float(low) / 100, float(high or low) / 100]}


def _name(device: str) -> str:
    return device.strip().lower().replace(" ", "-")
