"""What is stored about one cell: cells/<id>.json. The raw samples are in a file of their own (`enginebench.records.samples`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias

from enginebench.domain import JSON, Cell, Deployment, Status
from enginebench.records.counters import CounterSeries
from enginebench.records.schema import SCHEMA, StoredLoad
from enginebench.records.subject import Subject


@dataclass(frozen=True)
class PromptFacts:
    """How the prompts were made and sent."""

    form: str = ""
    """'ids' (token ids) or 'text'; empty in records from before this was stored."""
    exact: bool = True
    """Whether the token counts of the prompts were known. Otherwise text was scaled to how the server counts."""
    session_id: str = ""
    """Mixed into the prompts for an attached server, so that its prefix cache has not seen them in an earlier run."""
    notes: tuple[str, ...] = ()
    """What of a data set is not sent, and how a trace was read, one sentence each."""
    doubt: str | None = None
    """Why it could not be measured how the server counts text, so that lengths are guesses; None: it was, or need not be."""
    tokens: int = 0
    """Tokens of all prompts that were made for the load; 0: not counted."""
    reusable_tokens: int | None = None
    """Those that an earlier prompt begins with as well; None: unknown, or nothing may be cached."""
    rule_tokens: int | None = None
    """Those of the sent prompts that the engine's prefix cache has by its own rule (`PrefixRule`), if it forgets nothing; None: unknown."""


@dataclass(frozen=True)
class CellTraits:
    """What the adapter does with this deployment, as far as it affects how figures may be read."""

    length_control: str = "exact"
    """'exact': the engine generates exactly the tokens asked for. 'cap': it may stop earlier."""
    random_weights: bool = False
    """Whether the weights were made at random instead of trained."""
    dense: bool = False
    """Whether the model is known to have no expert routing."""
    forced_routing: bool = False
    """Whether a fixed rule, not the router, assigned tokens to experts."""
    uneven_routing: str = ""
    """Why that rule does not use the experts and their ranks evenly; '': it does, or there is none."""
    gpus: int | None = None
    """Devices the deployment takes if it runs on any; None: unknown (an attached server)."""


@dataclass(frozen=True)
class Delivery:
    """When the load ran, and whether all of it was sent."""

    window_ns: tuple[int, int] | None = None
    """Start and end of the load on the client's monotonic clock."""
    stopped: str | None = None
    """Why the load ended early; None: it ran to its end."""
    unsent: int = 0
    """Requests that were not sent because the load ended early."""
    saturated: str | None = None
    """Why the load was aborted as more than the server can take: its queue grew without bound."""


@dataclass(frozen=True)
class ClientHost:
    """A host that sent a part of the load, which started on all hosts at one instant of one clock."""

    name: str
    """Its address, as it was given."""
    streams: int
    """Most requests in flight; 0: no limit."""
    requests: int
    """Requests that it was given; those that it sent have samples."""
    offset_ms: float
    """Its monotonic clock minus that of the process that measured, before the load. All samples are on the latter."""
    error_ms: float
    """The offset was off by at most this, before or after the load."""
    drift_ms: float
    """By how much the offset grew over the load. It is taken to grow evenly."""
    span_s: float
    """Time between the two readings of the clock."""
    round_trip_ms: float
    """The shortest round trip to it."""
    health: Mapping[str, JSON] = field(default_factory=dict)
    """An `enginebench.loadgen.ClientHealth` of its part, as plain data."""
    limit: Mapping[str, JSON] = field(default_factory=dict)
    """What `bench calibrate` found there; empty: not calibrated."""
    telemetry: tuple[Subject, ...] = ()
    """Readings of that machine while the load ran."""
    shared_machine: str | None = None
    """Who else measured on that machine while the load ran; None: no known run."""


@dataclass(frozen=True)
class ClientFacts:
    """What the load generator measured about itself."""

    health: Mapping[str, JSON] = field(default_factory=dict)
    """An `enginebench.loadgen.ClientHealth` as plain data."""
    limit: Mapping[str, JSON] = field(default_factory=dict)
    """`events_per_s` and `streams` that `bench calibrate` found this client can handle, all hosts together; empty: not calibrated."""
    hosts: tuple[ClientHost, ...] = ()
    """Those that sent the load in the place of this machine (`client_nodes`, `--clients`); empty: this machine sent it."""


@dataclass(frozen=True)
class EngineCounters:
    """What the engine and the server count, under the neutral names of `enginebench.adapter.TOTALS` and `GAUGES`."""

    totals: Mapping[str, float] = field(default_factory=dict)
    """Total -> its increase over the cell."""
    series: CounterSeries = field(default_factory=CounterSeries)
    """Totals and gauges while the load ran."""
    token_check: Mapping[str, int] = field(default_factory=dict)
    """Output tokens of the warm-up `requests` according to the `server` and to the checkpoint's own `tokenizer`."""
    problem: str | None = None
    """Why the engine's counters could not be read."""


@dataclass(frozen=True)
class Stated:
    """Figures of a cell that a file of another tool states."""

    source: str
    """The tool and the file: 'vllm bench serve, serve.json'."""
    figures: Mapping[str, float]
    """Figure ('ttft_p50', 'output_throughput', ...) -> value in the metric's unit (`enginebench.metrics.registry`)."""


Lack: TypeAlias = Literal["start times", "due times", "gaps", "asked lengths"]
"""What a file of another tool with single requests may not say: when each was sent, when each was due, when its output came between the
first and the last event, how many tokens were asked for."""


@dataclass(frozen=True)
class Imported:
    """Where a cell comes from that another tool measured, and how that tool measured it."""

    tool: str
    """'vllm bench serve'."""
    version: str | None
    """Of the tool, or of its format; None: the file does not say."""
    file: str
    """Name of the file."""
    lacks: tuple[Lack, ...] = ()
    """What its raw samples lack; metrics and checks that need it are left out."""
    caveats: tuple[str, ...] = ()
    """Known faults of the tool that apply to this load, with their size where it was measured."""
    faults: tuple[str, ...] = ()
    """Those of the caveats that make the figures of this load doubtful, such as a client that is late with so many streams."""
    differs: Mapping[str, str] = field(default_factory=dict)
    """Metric -> how this tool's meaning differs from the metric's definition; figures with unlike meanings are not compared."""
    own: Mapping[str, float] = field(default_factory=dict)
    """Figures without an equal here, under the tool's own names and units. Never compared."""
    percentiles: str = ""
    """How the tool computes percentiles."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Facts that the file lacks and that the person who imported it stated: 'engine' -> 'vllm'."""
    missing: tuple[str, ...] = ()
    """Facts that neither the file nor that person states."""
    rejected: str = ""
    """Why the tool itself says that this is no valid result; empty: it does not."""


@dataclass(frozen=True)
class CellRecord:
    """One cell. Its evidence is its raw samples or, if another tool measured it, `stated`; with an import it may be both."""

    id: str
    """`Cell.id`, a hash of deployment, load and repeat. Names the files of the cell."""
    launch_id: str
    """The server start that measured it."""
    deployment: Deployment
    """The server that was measured, with all defaults filled in."""
    load: StoredLoad
    """What was to be sent; `delivery` says how much of it was."""
    repeat: int
    """Index of the repeat, from 0. Each repeat has a server start of its own."""
    status: Status
    """'ok': measured, whatever the verdict on it. 'failed': tried without a result. 'skipped': not tried."""
    reason: str | None = None
    """Why it failed or was skipped."""
    started_at: str | None = None
    """UTC, ISO 8601."""
    wall_s: float | None = None
    """Duration including making prompts and warm-up."""
    prompts: PromptFacts = field(default_factory=PromptFacts)
    """Form, exactness and notes of the prompts; defaults if the cell was not measured."""
    traits: CellTraits = field(default_factory=CellTraits)
    """Length control, weights, routing and devices of the deployment; defaults if the cell was not measured."""
    delivery: Delivery = field(default_factory=Delivery)
    """The time of the load, and how much of it was sent."""
    client: ClientFacts = field(default_factory=ClientFacts)
    """Condition and calibrated limits of the load generator."""
    counters: EngineCounters = field(default_factory=EngineCounters)
    """The engine's own counters over the cell; empty if it has none."""
    telemetry: tuple[Subject, ...] = ()
    """Readings of GPUs, machine and engine processes while the load ran."""
    stated: Stated | None = None
    """Figures that another tool's file states; where there are raw samples as well, only what these cannot give."""
    imported: Imported | None = None
    """The tool and file that a cell was imported from; None: measured here, or imported before this was stored."""
    samples_sha256: str | None = None
    """SHA-256 of samples/<id>.parquet; None: no raw samples, or stored before this was."""
    shared_machine: str | None = None
    """Who else measured on this machine or used its GPU while the cell ran, with --share-machine; None: no known run."""
    identity: str | None = None
    """`Startup.identity` of the server that measured it."""
    log_tail: tuple[str, ...] = ()
    """Last lines of the engine's log, if the cell failed."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What it was measured with -> its SHA-256, after '~' where only samples were hashed. Names as in `RunRecord.inputs`."""
    schema: int = SCHEMA
    """Version of the format it is stored in."""

    @classmethod
    def of(cls, cell: Cell, status: Status, reason: str | None = None, *, log_tail: tuple[str, ...] = ()) -> Self:
        """The record of a cell about which nothing else is known."""
        return cls(cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, status, reason, log_tail=log_tail)


def has_samples(record: CellRecord) -> bool:
    """Whether a cell that ran should have raw samples: all but those of which a file states figures only."""
    return record.stated is None or record.samples_sha256 is not None
