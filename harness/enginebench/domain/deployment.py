"""A deployment: engine, model, precision, parallelism, options and runtime of a server. Frozen plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enginebench.domain.container import Container
from enginebench.domain.ids import JSON, plain_object
from enginebench.domain.precisions import UNSTATED
from enginebench.domain.speculation import Speculation

Runtime: TypeAlias = Literal["process", "docker", "attach", "in-process"]
_LATER: Mapping[str, object] = {"speculation": None, "loras": {}, "node": {}, "nodes": 1}
"""Fields that older records lack -> their default, with which they are not stored."""


@dataclass(frozen=True)
class Parallelism:
    """How a deployment is spread over devices. Engines use other words; these five have one meaning."""

    tp: int = 1
    """Ranks that share each layer."""
    pp: int = 1
    """Pipeline stages."""
    dp_replicas: int = 1
    """Whole copies, on extra devices."""
    attention_dp: int = 1
    """Attention replicas *inside* tp, without extra devices."""
    ep: int = 1
    """Ranks that share the experts of a layer."""

    @property
    def devices(self) -> int:
        """Devices of a deployment in which every rank has its own."""
        return self.tp * self.pp * self.dp_replicas

    @property
    def text(self) -> str:
        """'tp=4 ep=4': the degrees above 1; 'one device' without any."""
        return " ".join(f"{name}={value}" for name, value in vars(self).items() if value > 1) or "one device"


@dataclass(frozen=True)
class Deployment:
    """Everything whose change needs a new server: engine, weights, precision, parallelism, engine options, runtime."""

    engine: str
    """Name of the adapter: 'vllm', 'llamacpp'."""
    model: str
    """Name of the model in the scenario. Deployments with the same name are compared, whatever their checkpoints."""
    precision: str
    """Of the weights, as in the scenario: 'bf16', 'fp8', 'q4_k_m'; UNSTATED for an attached server without one."""
    checkpoint: str
    """The reference that the scenario resolves for this engine and precision, see `enginebench.checkpoints`."""
    runtime: Runtime = "process"
    """Where the engine runs: 'process', 'docker', 'attach' (a server that is up already) or 'in-process' (an offline batch)."""
    parallelism: Parallelism = Parallelism()
    """How the model is spread over devices; one device by default."""
    max_context: int = 2048
    """Tokens of prompt and output of one request that the server must hold; default of a scenario: the most that its loads need."""
    max_concurrency: int = 1
    """Requests in flight that the server must hold; default of a scenario: the most that its loads need."""
    options: Mapping[str, JSON] = field(default_factory=dict)
    """Settings of this engine under the names of its adapter; what is missing is the adapter's default."""
    url: str | None = None
    """attach: base URL of the running server, e.g. http://127.0.0.1:8000 (without /v1), or the whole URL of its route."""
    api_key_env: str | None = None
    """attach: the *name* of the environment variable that holds the key; its value is never stored."""
    api_key_header: str | None = None
    """attach: the header that carries the key; None: 'Authorization: Bearer KEY'."""
    ca_file: str | None = None
    """attach: PEM file with the certificates to trust; relative names start from the folder of the scenario."""
    ready_timeout_s: float | None = None
    """Seconds that the engine may take to become ready; None: the adapter's default."""
    label: str | None = None
    """A name for tables; None: engine, model and what varies."""
    container: Container = field(default_factory=Container)
    """docker: the engine's container."""
    speculation: Speculation | None = None
    """Speculative decoding in neutral words; None: none, or what `options` ask for in the engine's own."""
    node: Mapping[str, str] = field(default_factory=dict)
    """Labels of the node that it needs, as of `--on`: {'name': 'a'}; empty: any that fits."""
    nodes: int = 1
    """Nodes that it spans, each with an equal part of its devices."""
    loras: Mapping[str, str] = field(default_factory=dict)
    """LoRA adapters that the server loads beside the model: name -> path; loads say how many of them get requests."""

    def stored(self) -> Mapping[str, object]:
        """The fields as JSON has them; those that were added later only where they are set."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if name not in _LATER or value != _LATER[name]}

    @property
    def known_precision(self) -> str:
        """The precision as it is shown; '' where neither the scenario nor a file states it, as of an attached server."""
        return "" if self.precision == UNSTATED else self.precision

    @property
    def shown(self) -> dict[str, JSON]:
        """The deployment as plain data for people and exports."""
        return plain_object(self) | {"precision": self.known_precision or None}

    @property
    def inside(self) -> Deployment:
        """The deployment as an adapter gets it: inside its container the engine is an ordinary process."""
        return dataclasses.replace(self, runtime="process", container=Container()) if self.runtime == "docker" else self
