"""What is sent to a deployment, and when: the common part of every load, and the registry of its kinds. Frozen plain data.

A kind of load (`enginebench.domain.loads`, one class each) adds what it needs to `Load` and answers what others ask of a load: level,
label, phases, requests in flight. `enginebench.workload` makes requests of it. Does not know engines or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeAlias

from enginebench.domain.load_field import LoadField, fields_of, load_field

Length: TypeAlias = int | str
"""Tokens: a number, a distribution such as 'uniform(64,256)' (see `enginebench.workload.lengths`), or 'data': as the data set has it."""


@dataclass(frozen=True)
class Phase:
    """A part of a load in which its level is one number."""

    index: int
    """From 0, in order of time."""
    label: str
    """The level in words: '8 req/s'."""
    level: float
    """As `Load.level`, in the unit of the load's kind."""
    start_s: float
    """From the start of the load."""
    end_s: float | None
    """None: until the load ends."""


@dataclass(frozen=True, kw_only=True)
class Load(ABC):
    """The common part of all loads.

    A load ends when `requests` have been sent or `duration_s` has passed, whichever is first.
    """

    kind: ClassVar[str]
    """'closed loop': heading of the plots with loads of this kind."""
    axis: ClassVar[str]
    """What the level is, as the title of an axis."""
    key: ClassVar[str | None]
    """The field that makes a load one of this kind; None: a load without any such field."""
    sends: ClassVar[str]
    """When requests are sent, as a clause. Explains why a field of another kind is refused."""
    level_fields: ClassVar[tuple[str, ...]]
    """The fields that `at_level` sets."""
    excluded: ClassVar[Mapping[str, str]] = {}
    """Common fields that this kind does not use -> why."""
    open_loop: ClassVar[bool] = False
    """Whether requests are sent when they are due, without waiting for the server."""
    ends: ClassVar[bool] = False
    """Whether the load ends by itself, without `requests` and `duration_s`."""
    in_every_record: ClassVar[bool] = False
    """Whether loads of other kinds store the fields of this kind as well, with their defaults. True for the kinds of schema 1."""
    source: ClassVar[str] = "prompts"
    """The field that names the file whose content is sent."""

    concurrency: int = load_field(
        "Requests kept in flight (closed loop, default 1). In an open loop: the most that may be in flight; default 0, no limit.",
        default=1, role="level", least=0, most=65_536, heading="streams", inferred=True,
    )  # fmt: skip
    input_tokens: int | str = load_field(
        "Prompt length in tokens, as the server counts it, a chat template included: a number, a distribution such as uniform(64,256), or "
        "data; default 128, data with a data set.",
        default=128, role="lengths", heading="in", inferred=True, replaced_by="lengths",
    )  # fmt: skip
    output_tokens: int | str = load_field(
        "Tokens to generate per request: as `input_tokens`; default 64, data with a data set.",
        default=64, role="lengths", heading="out", inferred=True, replaced_by="lengths",
    )  # fmt: skip
    lengths: str | None = load_field(
        "Pairs to draw from, '[CLASS:] IN[/SHARED]+OUT[*WEIGHT], ...', e.g. '128+64*3, 2048+256' or 'chat: 220+180*7, long: 8192+512*3'; "
        "instead of input_tokens and output_tokens. Classes are reported one by one and together.",
        default=None, role="lengths", examples=("'128+64*3, 2048+256'",),
    )  # fmt: skip
    requests: int = load_field(
        "Measured requests per cell; default: 4 per stream, at least 16 (closed loop); a minute's worth, at least 64 (rate); times "
        "`turns`; for `find` at least as many as `slo.share` needs to be judged. With duration_s the most that may be sent, with a trace "
        "its first rows, and not more than it has; default then 0, as many as there are.",
        default=16, role="extent", least=0, most=10_000_000, inferred=True,
    )  # fmt: skip
    duration_s: float | None = load_field(
        "Seconds after which nothing new falls due; requests that wait for an open loop's `concurrency` are still sent.",
        default=None, role="extent", above=0, most=1_000_000, examples=(60,), unit="s", heading="seconds",
    )  # fmt: skip
    warmup_requests: int = load_field(
        "Requests sent before the window opens, never measured; default: one per stream, 4 in an open loop.",
        default=1, role="extent", least=0, most=10_000_000, inferred=True,
    )  # fmt: skip
    prompts: str = load_field(
        "random: uniformly drawn ordinary tokens. text: English words. Or a data set: sharegpt:FILE, jsonl:FILE[#COLUMN], "
        "hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]; files relative to this one. Random and text prompts are unique.",
        default="random", examples=("sharegpt:chats.json",),
    )  # fmt: skip
    workload: str | None = load_field(
        "A named workload (`bench workloads`), whose keys are used where this entry does not write them.",
        default=None, examples=("chat", "chat@1"), sparse=True,
    )  # fmt: skip
    prefix_groups: int = load_field(
        "Groups of prompts that share their first `prefix_tokens`; 0: prompts share nothing.",
        default=0, least=0, most=10_000_000, needs=("prefix_tokens", None),
    )  # fmt: skip
    prefix_tokens: int = load_field(
        "Tokens of `input_tokens` that the prompts of a group share.",
        default=0, least=0, most=10_000_000, needs=("prefix_groups", None),
    )  # fmt: skip
    turns: int = load_field("Requests of one conversation; each holds the turns and answers before it.", default=1, least=1, most=1_000)
    think_s: float = load_field(
        "Seconds between an answer and the next turn.",
        default=0.0, least=0, most=1_000_000, examples=(5,), unit="s", needs=("turns", None),
    )  # fmt: skip
    api: Literal["completions", "chat", "responses", "messages"] = load_field(
        "Route: raw completions, chat, OpenAI's responses, or Anthropic's messages.", default="completions"
    )
    system_tokens: int = load_field(
        "Tokens of `input_tokens` that are a system message, the same for all requests; not with raw completions.",
        default=0, least=0, most=10_000_000, sparse=True,
    )  # fmt: skip
    tools: str | None = load_field(
        "Tools sent with every request: a JSON file with a list of OpenAI's tools, or how many to make up; not with raw completions.",
        default=None, examples=("tools.json", "8"), sparse=True,
    )  # fmt: skip
    tool_choice: Literal["auto", "none", "required"] = load_field(
        "Whether an answer may or must call a tool.", default="auto", needs=("tools", None), sparse=True
    )
    response_format: str | None = load_field(
        "Form of the answers: json_object, or a file with a JSON schema; not with raw completions.",
        default=None, examples=("answer.schema.json",), sparse=True,
    )  # fmt: skip
    images: int = load_field(
        "Images in every request, made of noise; their tokens come on top of `input_tokens`; not with raw completions.",
        default=0, least=0, most=1_000, sparse=True,
    )  # fmt: skip
    image_size: str = load_field(
        "Width and height of the images in pixels.", default="512x512", needs=("images", None), examples=("1024x768",), sparse=True
    )
    cancel_share: float = load_field(
        "Share of the requests that the client aborts `cancel_s` after sending them, as users do: no failures, and counted apart.",
        default=0.0, least=0, most=1, needs=("cancel_s", None), sparse=True,
    )  # fmt: skip
    cancel_s: float = load_field(
        "Seconds after which such a request is aborted.",
        default=0.0, least=0, most=1_000_000, examples=(2,), unit="s", needs=("cancel_share", None), sparse=True,
    )  # fmt: skip
    loras: int = load_field(
        "Requests go to the first N LoRA adapters of the deployment in turn (its key `loras`); 0: to the model itself.",
        default=0, least=0, most=1_000, sparse=True,
    )  # fmt: skip
    prefix_cache: Literal["cold", "allowed", "warm"] = load_field(
        "cold: a cached prompt token makes the cell invalid. allowed: caching is part of what is measured. warm: as allowed, and what the "
        "prompts of each prefix group share is sent once before the window.",
        default="cold",
    )
    temperature: float = load_field("Sampling temperature; 0 is greedy.", default=0.0, least=0, most=10)
    seed: int = load_field("Seed of arrivals, lengths, prompts and sampling.", default=0, least=0, most=2**63 - 1)
    timeout_s: float = load_field(
        "A request that takes longer has failed; checked every 50 ms.",
        default=600.0, role="client", above=0, most=1_000_000, examples=(60,), unit="s",
    )  # fmt: skip

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            cls.in_every_record = cls.__dict__.get("in_every_record", False)  # not inherited
            KINDS.append(cls)

    # -- level -----------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def level(self) -> float:
        """How heavy the load is: streams of a closed loop, requests/s of an open one, replay speed of a trace."""

    @property
    @abstractmethod
    def level_text(self) -> str:
        """The level in words: '1 stream', '2.5 req/s'. Loads of one kind with different levels have different texts."""

    @abstractmethod
    def at_level(self, level: float) -> Self:
        """The same load at another level."""

    def without_level(self, *others: str) -> Self:
        """What loads that differ in their level only have in common. others: further fields to leave out."""
        kept: dict[str, Any] = {name: None if fields_of(type(self))[name].default is None else 0 for name in others}
        return replace(self.at_level(1), **kept)

    def phases(self) -> tuple[Phase, ...]:
        """The parts of the load in which the level is one number, in order."""
        return (Phase(0, self.level_text, self.level, 0.0, None),)

    def in_phase(self, phase: Phase) -> Load:
        """The load that a phase is by itself: rows, plots and rankings show a phase as this load."""
        return self

    @property
    def change(self) -> str:
        """Why what is sent changes over the load by design, as a clause; '' if it should be steady."""
        return ""

    # -- in flight -------------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> int | None:
        """Requests kept in flight; None: the server's pace decides."""
        return None if self.open_loop else self.concurrency

    @property
    def limit(self) -> int | None:
        """The most requests in flight where the load does not fix the number; 0: no limit. None: the number is fixed."""
        return self.concurrency if self.open_loop else None

    @property
    def start_spread_s(self) -> float:
        return 0.0

    @property
    def needs_server(self) -> str | None:
        """What an in-process batch, which gets all its requests at once, cannot do; None if it can serve the load."""
        kinds = {"an open loop": self.open_loop, "a conversation": self.turns > 1, "a duration": self.duration_s is not None}
        return next((name for name, applies in kinds.items() if applies), None)

    @property
    def dispersion(self) -> float | None:
        """Variance over mean of the number of arrivals at a constant rate; None where a queue may grow by design."""
        return None

    @property
    def mean_rate(self) -> float | None:
        """Arrivals/s on average; None where the load does not set a rate."""
        return None

    # -- how many --------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def usual_requests(self) -> int:
        """Conversations that make a measurement where neither `requests` nor `duration_s` is set; 0: as many as there are."""

    @property
    def usual_warmup(self) -> int:
        """Warm-up requests where `warmup_requests` is not set."""
        return self.concurrency

    @property
    def templated(self) -> bool:
        """Whether the server puts the messages into its chat template."""
        return self.api != "completions"

    # -- lengths ---------------------------------------------------------------------------------------------------------

    @property
    def token_lengths(self) -> tuple[Length, Length]:
        """Input and output tokens of a request; 'data' where a file says. Meaningless with `lengths`."""
        return self.input_tokens, self.output_tokens

    @property
    def output_length(self) -> int | None:
        """The output tokens of every request; None where they differ or a file says."""
        made = self.token_lengths[1]
        return made if isinstance(made, int) and self.lengths is None else None

    @property
    def shape_text(self) -> str:
        """'128 + 64 tokens', 'uniform(64,256) + 64 tokens', '128+64, 2048+256 tokens'."""
        return f"{self.lengths or f'{self.input_tokens} + {self.output_tokens}'} tokens"

    # -- fields ----------------------------------------------------------------------------------------------------------

    @property
    def main_fields(self) -> tuple[str, ...]:
        """The fields that identify level and lengths in a table."""
        return self.key or "concurrency", "lengths" if self.lengths is not None else "input_tokens"

    def uses(self, name: str) -> bool:
        """Whether a field, of any kind of load, has an effect on this load."""
        declared = fields_of(type(self)).get(name)
        if declared is None or name in self.excluded or (declared.replaced_by and getattr(self, declared.replaced_by) is not None):
            return False
        if declared.needs is None:
            return True
        other, value = declared.needs
        return bool(self.value(other) == value if value is not None else self.value(other) != load_fields()[other].default)

    def value(self, name: str) -> Any:
        """The value of a field of any kind of load: its default if this load does not have the field."""
        return getattr(self, name, load_fields()[name].default)

    def stored(self) -> Mapping[str, Any]:
        """The load as flat JSON has it: its own fields, and those that records of every kind have."""
        found = ((name, self.value(name)) for name in _stored_names(type(self)))
        return {name: value for name, value in found if not (load_fields()[name].sparse and value == load_fields()[name].default)}


KINDS: list[type[Load]] = []
"""All kinds of load, in order of registration."""


def kind_of(given: Mapping[str, Any]) -> type[Load]:
    """The kind of load that has these fields; a field that is None is not set."""
    return next(kind for kind in reversed(KINDS) if kind.key is None or given.get(kind.key) is not None)


@cache
def load_fields() -> Mapping[str, LoadField]:
    """The fields of all kinds, each once: `concurrency`, what the kinds add (fields of the level first), the rest of the common part."""
    common = fields_of(Load)
    added = {name: declared for kind in KINDS for name, declared in fields_of(kind).items() if name not in common}
    return {"concurrency": common["concurrency"], **dict(sorted(added.items(), key=lambda item: item[1].role != "level")), **common}


def field_names(*roles: str) -> tuple[str, ...]:
    return tuple(name for name, declared in load_fields().items() if declared.role in roles)


@cache
def _stored_names(kind: type[Load]) -> tuple[str, ...]:
    stored = {name for other in KINDS if other is kind or other.in_every_record for name in fields_of(other)}
    return tuple(name for name in load_fields() if name in stored)
