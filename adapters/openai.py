"""Any server that is already up and speaks the OpenAI API: vLLM, SGLang, TensorRT-LLM, a gateway, a colleague's endpoint.

Nothing is launched and nothing is known of the engine behind the address, so nothing can be proved of its configuration.
Prompts are text unless `prompt_ids` says that the server takes token ids, and lengths are a cap unless `ignore_eos` forces them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.adapter import (
    JSON,
    Adapter,
    Deployment,
    Get,
    Install,
    Launch,
    Load,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    options_as,
)


@dataclass(frozen=True)
class OpenAIOptions:
    """What this server can do beyond the common core."""

    prompt_ids: bool = False
    """Send prompts to /v1/completions as token ids (vLLM, SGLang, TensorRT-LLM and llama.cpp take them)."""
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

    def readiness(self, get: Get) -> Readiness:
        # /v1/models is what every such server has; /health is not, and on some answers before the model is loaded.
        status = get("/v1/models").status
        if status == 404:
            status = get("/health").status
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    def resolved(self, get: Get) -> Resolved:
        listing = get("/v1/models").json()
        models = listing.get("data") if isinstance(listing, dict) else None
        names = [entry.get("id") for entry in models if isinstance(entry, dict)] if isinstance(models, list) else []
        only = names[0] if len(names) == 1 and isinstance(names[0], str) else None
        return Resolved(model=only, raw={"/v1/models": listing})

    def takes_ids(self, deployment: Deployment) -> bool:
        return options_as(OpenAIOptions, deployment).prompt_ids

    def forces_length(self, deployment: Deployment) -> bool:
        return options_as(OpenAIOptions, deployment).ignore_eos

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        forced: dict[str, JSON] = {"ignore_eos": True} if options_as(OpenAIOptions, deployment).ignore_eos else {}
        return {"stream_options": {"include_usage": True}, **forced}
