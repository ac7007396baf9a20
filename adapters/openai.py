"""Any server that is already up: vLLM, SGLang, TensorRT-LLM, Ollama, TGI, a gateway, a colleague's endpoint.

It is spoken to as OpenAI's API has it or, with `protocol`, by the server's own. Nothing is launched and nothing is known of the
engine behind the address, so nothing can be proved of its configuration but what it tells. Prompts are text unless `prompt_ids`
says that the server takes token ids, and lengths are a cap unless `ignore_eos` forces them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.adapter import (
    JSON,
    PROTOCOLS,
    Adapter,
    Deployment,
    Dialect,
    Get,
    Install,
    Launch,
    Load,
    ProtocolName,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    as_list,
    as_object,
    only,
    options_as,
    without_secrets,
)

Fields = Mapping[str, JSON]

READY = ("/v1/models", "/health", "/api/version")
"""Where to look for readiness; the first path that the server has counts. /v1/models comes first: /health answers on some servers
before the model is loaded, and generates a token on SGLang."""

ABOUT = ("/v1/models", "/version", "/server_info", "/info", "/api/version", "/api/ps")
"""Where servers tell of themselves: OpenAI's list of models, vLLM, SGLang, TGI, and Ollama twice."""

NEUTRAL: dict[str, JSON] = {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""SGLang's own sampling, were it not said, would be the checkpoint's."""

FORCED: Mapping[ProtocolName, Fields] = {"openai": {"ignore_eos": True}, "sglang": {"sampling_params": {**NEUTRAL, "ignore_eos": True}}}
"""What makes generation go on after an end of sequence; the other protocols cannot say it. The same two take token ids."""

FIELDS: Mapping[ProtocolName, Fields] = {
    "openai": {"stream_options": {"include_usage": True}, "top_p": 1.0},  # top_k and min_p are nothing that OpenAI's API has
    # Ollama's own sampling is not neutral, and its repeat penalty changes even a greedy answer.
    "ollama": {"options": {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}},
    "sglang": {"sampling_params": NEUTRAL},
    "tgi": {},  # refuses a top_p of 1, and has none unless told
}
"""What every request of a protocol carries beside the prompt, the length and the sampling."""


@dataclass(frozen=True)
class OpenAIOptions:
    """What this server can do beyond the common core."""

    protocol: ProtocolName = "openai"
    """How it is spoken to: OpenAI's routes, or Ollama's, SGLang's or TGI's own."""
    prompt_ids: bool = False
    """Send prompts as token ids (by the OpenAI protocol vLLM, SGLang, TensorRT-LLM and llama.cpp take them; by SGLang's own, all)."""
    ignore_eos: bool = False
    """Add "ignore_eos": true, which vLLM, SGLang, TensorRT-LLM and llama.cpp obey and strict servers refuse."""


class OpenAI(Adapter):
    name = "openai"
    title = "OpenAI-compatible server"
    precisions = None
    runtimes = ("attach",)
    apis = ("completions", "chat")
    options = OpenAIOptions
    prompt_form = "text"
    length_control = "cap"

    def find(self, python: Path | None) -> Sequence[Install]:
        return (Install(variant="attach", version="unknown"),)

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        raise Unsupported(f"{self.title} is only ever attached to (runtime: attach), never launched")

    def check(self, deployment: Deployment) -> None:
        """Any parallelism: it describes a server that is already there, and only its GPU count matters to the report."""
        if deployment.url is None:
            raise Unsupported("attach needs `url`, the address of the server without /v1")
        options = options_as(OpenAIOptions, deployment)
        if options.protocol not in FORCED and (options.prompt_ids or options.ignore_eos):
            raise Unsupported(f"the {options.protocol} protocol knows neither prompt_ids nor ignore_eos")

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        protocol = options_as(OpenAIOptions, deployment).protocol
        for load in loads:
            if load.api not in PROTOCOLS[protocol]:
                raise Unsupported(f"the {protocol} protocol has no {load.api} route; `protocol: openai` may have one")

    def readiness(self, get: Get) -> Readiness:
        status = next((found for path in READY if (found := get(path).status) != 404), 404)
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    def resolved(self, get: Get) -> Resolved:
        told = {path: without_secrets(reply.json()) for path in ABOUT if (reply := get(path)).status == 200}
        vllm, sglang, tgi, ollama = (as_object(told.get(path)) for path in ("/version", "/server_info", "/info", "/api/version"))
        loaded = _only(told.get("/api/ps"), "models")
        cache_off = sglang.get("disable_radix_cache")
        return Resolved(
            version=next((version for told_by in (vllm, sglang, tgi, ollama) if (version := _text(told_by, "version"))), None),
            model=_text(_only(told.get("/v1/models"), "data"), "id") or _text(loaded, "name") or _text(tgi, "model_id"),
            context=only(int, sglang.get("context_length"))
            or only(int, tgi.get("max_total_tokens"))
            or only(int, loaded.get("context_length")),
            slots=only(int, sglang.get("max_running_requests")),
            prefix_cache=not cache_off if isinstance(cache_off, bool) else None,
            kv_dtype=_text(sglang, "kv_cache_dtype"),
            raw=told,
        )

    def takes_ids(self, deployment: Deployment) -> bool:
        return options_as(OpenAIOptions, deployment).prompt_ids

    def forces_length(self, deployment: Deployment) -> bool:
        return options_as(OpenAIOptions, deployment).ignore_eos

    def dialect(self, deployment: Deployment, load: Load) -> Dialect:
        return PROTOCOLS[options_as(OpenAIOptions, deployment).protocol][load.api]

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Fields:
        options = options_as(OpenAIOptions, deployment)
        return {**FIELDS[options.protocol], **(FORCED[options.protocol] if options.ignore_eos else {})}


def _only(listing: JSON, name: str) -> dict[str, JSON]:
    """The one entry of a list of models; {} if there are more or none, because it is not known then which is meant."""
    entries = as_list(as_object(listing).get(name))
    return as_object(entries[0]) if len(entries) == 1 else {}


def _text(told: Mapping[str, JSON], name: str) -> str | None:
    return only(str, told.get(name)) or None
