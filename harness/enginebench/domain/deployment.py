"""What a server is started with: engine, model, precision, parallelism, options and runtime. Frozen plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enginebench.domain.container import Container
from enginebench.domain.ids import JSON

Runtime: TypeAlias = Literal["process", "docker", "attach", "in-process"]


@dataclass(frozen=True)
class Parallelism:
    """How a deployment is spread over devices. The engines' words differ; these five never do.

    tp: ranks that share each layer. pp: pipeline stages. dp_replicas: whole copies (extra devices). attention_dp: attention
    replicated *inside* tp (no extra devices). ep: ranks that share the experts of a layer.
    """

    tp: int = 1
    pp: int = 1
    dp_replicas: int = 1
    attention_dp: int = 1
    ep: int = 1

    @property
    def text(self) -> str:
        """'tp=4 ep=4': the degrees above 1; 'one device' without any."""
        return " ".join(f"{name}={value}" for name, value in vars(self).items() if value > 1) or "one device"


@dataclass(frozen=True)
class Deployment:
    """Whatever changes this needs a new server: engine, weights, precision, spread, engine options, runtime.

    checkpoint is the reference as the scenario resolves it for this engine and precision (see `enginebench.checkpoints`).
    max_context (tokens of prompt + output of one request) and max_concurrency (requests in flight) are what the server must
    be able to hold; plan() derives them from the loads when the scenario does not say.
    """

    engine: str
    model: str
    precision: str
    checkpoint: str
    runtime: Runtime = "process"
    parallelism: Parallelism = Parallelism()
    max_context: int = 2048
    max_concurrency: int = 1
    options: Mapping[str, JSON] = field(default_factory=dict)
    url: str | None = None
    """attach: base URL of the server that is already up, e.g. http://127.0.0.1:8000 (without /v1)."""
    api_key_env: str | None = None
    """attach: the *name* of the environment variable that holds the key; its value is never stored."""
    ready_timeout_s: float | None = None
    """How long the engine may take to become ready; None: what its adapter thinks."""
    label: str | None = None
    """A name for tables; None: engine, model and what varies."""
    container: Container = field(default_factory=Container)
    """docker: how the engine is boxed in."""

    @property
    def inside(self) -> Deployment:
        """What an adapter is shown: to the engine in a container it is a process like any other."""
        return dataclasses.replace(self, runtime="process", container=Container()) if self.runtime == "docker" else self
