"""Any server that is already running: vLLM, SGLang, TensorRT-LLM, Ollama, TGI, a gateway, a colleague's endpoint.

Nothing is launched, and only what the server reports is known of its configuration. Prompts are text unless `prompt_ids` says that the
server takes token ids, and lengths are a cap unless `ignore_eos` forces them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import enginebench.adapter as eb

RequestFields = Mapping[str, eb.JSON]

CONFIGURATION = ("/v1/models", "/version", "/server_info", "/info", "/api/version", "/api/ps")
"""Where servers report their configuration: OpenAI's list of models, vLLM, SGLang, TGI, and Ollama twice."""

NEUTRAL: dict[str, eb.JSON] = {"top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Without these SGLang samples as the checkpoint says."""

FORCED: Mapping[eb.ProtocolName, RequestFields] = {
    "openai": {"ignore_eos": True},
    "sglang": {"sampling_params": {**NEUTRAL, "ignore_eos": True}},
}
"""What makes generation continue after an end of sequence; the other protocols have nothing for it. The same two take token ids."""

FIELDS: Mapping[eb.ProtocolName, RequestFields] = {
    "openai": {"stream_options": {"include_usage": True}, "top_p": 1.0},  # OpenAI's API has neither top_k nor min_p
    # Ollama's own sampling is not neutral, and its repeat penalty changes even a greedy output.
    "ollama": {"options": {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}},
    "sglang": {"sampling_params": NEUTRAL},
    "tgi": {},  # refuses a top_p of 1, and has none by default
}
"""What every request of a protocol carries besides the prompt, the length and the sampling."""


@dataclass(frozen=True)
class OpenAIOptions:
    """What this server can do beyond the common core."""

    protocol: eb.ProtocolName = "openai"
    """How requests are sent: OpenAI's routes, or Ollama's, SGLang's or TGI's own."""
    prompt_ids: bool = False
    """Send prompts as token ids (by the OpenAI protocol vLLM, SGLang, TensorRT-LLM and llama.cpp take them; by SGLang's own, all)."""
    ignore_eos: bool = False
    """Add "ignore_eos": true, which vLLM, SGLang, TensorRT-LLM and llama.cpp obey and strict servers refuse."""


class OpenAI(eb.Adapter):
    name = "openai"
    title = "OpenAI-compatible server"
    apis = ("completions", "chat", "responses", "messages")
    runtimes = ("attach",)
    options = OpenAIOptions
    # /v1/models comes first: on some servers /health answers before the model is loaded, and on SGLang it generates a token.
    ready_paths = ("/v1/models", "/health", "/api/version")

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        options, gpus = eb.options_as(OpenAIOptions, deployment), deployment.parallelism.devices
        return eb.Traits(gpus, protocol=options.protocol, takes_ids=options.prompt_ids, forces_length=options.ignore_eos)

    def check(self, deployment: eb.Deployment) -> None:
        """Any parallelism: it describes a server that already runs, and only its number of GPUs matters to the report."""
        options = eb.options_as(OpenAIOptions, deployment)
        beyond = options.protocol not in FORCED and (options.prompt_ids or options.ignore_eos)
        eb.refuse(
            (deployment.url is None, "attach needs `url`, the address of the server"),
            (beyond, f"the {options.protocol} protocol has neither prompt_ids nor ignore_eos"),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return (eb.Install(variant="attach", version="unknown"),)

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        raise eb.Unsupported(f"{self.title} can only be attached to (runtime: attach), not launched")

    def readiness(self, get: eb.Get) -> eb.Readiness:
        """Any answer but 'not now' will do: gateways lack these routes or forbid them, and the first generation proves the rest."""
        status = next((found for path in self.ready_paths if (found := get(path).status) != 404), 404)
        if status in (0, 502, 503, 504):
            return "loading"
        return "ready" if (0 < status < 500 and status != 426) or status == 501 else "broken"  # 426: HTTP/2 only; 501: no such route

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> RequestFields:
        options = eb.options_as(OpenAIOptions, deployment)
        return {**FIELDS[options.protocol], **(FORCED[options.protocol] if options.ignore_eos else {})}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        raw = {path: eb.without_secrets(reply.json()) for path in CONFIGURATION if (reply := get(path)).status == 200}
        models, vllm, sglang, tgi, ollama, loaded = (eb.Fields(raw.get(path)) for path in CONFIGURATION)
        running = _only_entry(loaded, "models")
        contexts = (sglang.whole("context_length"), tgi.whole("max_total_tokens"), running.whole("context_length"))
        names = (_only_entry(models, "data").text("id"), running.text("name"), tgi.text("model_id"))
        no_cache = sglang.flag("disable_radix_cache")
        return eb.Resolved(
            version=next((version for server in (vllm, sglang, tgi, ollama) if (version := server.text("version"))), None),
            model=next(filter(None, names), None),
            context=next(filter(None, contexts), None),
            slots=sglang.whole("max_running_requests"),
            prefix_cache=None if no_cache is None else not no_cache,
            kv_dtype=sglang.text("kv_cache_dtype") or None,
            raw=raw,
        )

    def scoring(self, deployment: eb.Deployment) -> eb.Scoring:
        options = eb.options_as(OpenAIOptions, deployment)
        eb.refuse((not options.prompt_ids, "tokens are scored by their ids: write prompt_ids: true if this server takes them"))
        if options.protocol == "sglang":
            return eb.scoring.input_token_logprobs()
        eb.refuse((options.protocol != "openai", f"the {options.protocol} protocol returns no log-probabilities of a prompt"))
        return eb.scoring.echoed()


def _only_entry(listing: eb.Fields, key: str) -> eb.Fields:
    """The entry of a list of models that has one; empty where there are several or none, because the right one is then unknown."""
    entries = eb.as_list(listing.at(key))
    return eb.Fields(entries[0] if len(entries) == 1 else None)
