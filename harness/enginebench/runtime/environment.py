"""The environment of an engine, from an explicit list, so that no variable of the user's shell becomes an unrecorded option."""

import os
from collections.abc import Mapping

from enginebench.adapter import Launch
from enginebench.runtime.leftovers import MARKER

# fmt: off
INHERITED = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "CC", "CXX",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
))
# fmt: on
"""Paths and network settings, inherited by name."""

INHERITED_PREFIXES = ("LC_", "DYLD_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "ROCM_", "HSA_", "HF_", "HUGGINGFACE_")
"""Visible devices and weight caches. Tuning variables (OMP_, NCCL_, VLLM_, PYTORCH_, GGML_ ...) are *not* inherited: they change
results, so they belong in the scenario's options, where they become part of the deployment."""

ADDED: Mapping[str, str] = {
    "PYTHONUNBUFFERED": "1",  # so that the last lines before a crash reach the log
    "SPT_NOENV": "1",  # stops setproctitle (vLLM, SGLang) from overwriting the environment, which holds MARKER
}


def environment(launch: Launch, tag: str, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The engine's environment: inherited names, then ADDED, then launch.env, then the marker of the launch. Later ones win."""
    base = os.environ if inherited is None else inherited
    return {**{name: base[name] for name in passed_on(base)}, **ADDED, **launch.env, MARKER: tag}


def passed_on(base: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables that an engine inherits from `base`. Recorded with every launch, without values."""
    return tuple(sorted(name for name in base if name in INHERITED or name.startswith(INHERITED_PREFIXES)))
