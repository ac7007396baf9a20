"""What goes with what in an entry of `loads`: every contradiction is one error at the key that is wrong, with what to write instead.

Looks at keys and plain values only. What an expression, a data set or a trace holds is known by `enginebench.workload`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enginebench.inputs.source import Location, Source
from enginebench.scenario.load_schema import Loads

_ARRIVALS = "a trace brings its own arrivals"
_LENGTHS = "a trace brings its own lengths"
_NEEDS = {
    "rate_to": ("rate", "it is where the rate ends"),
    "arrivals": ("rate", "a closed loop sends when an answer has come, and a trace when it says"),
    "burstiness": ("arrivals", "`arrivals: gamma` has a shape"),
    "time_scale": ("trace", "it stretches the times of a trace"),
    "think_s": ("turns", "it is the pause between the turns of a conversation"),
    "prefix_tokens": ("prefix_groups", "it is what the prompts of a group share"),
    "prefix_groups": ("prefix_tokens", "it is how many tokens the prompts of a group share"),
}
"""Key -> the key that must stand beside it, and why."""
_EXCLUDES = {
    "trace": {
        "rate": _ARRIVALS, "rate_to": _ARRIVALS, "arrivals": _ARRIVALS, "burstiness": _ARRIVALS, "ramp_s": _ARRIVALS,
        "turns": "a trace brings its own requests", "input_tokens": _LENGTHS, "output_tokens": _LENGTHS, "lengths": _LENGTHS,
    },
    "lengths": dict.fromkeys(("input_tokens", "output_tokens"), "`lengths` holds both, as IN+OUT"),
    "rate": {"ramp_s": "an open loop has no streams to start one by one; let its rate rise with `rate_to`"},
}  # fmt: skip
"""Key -> the keys that must not stand beside it, each with why."""


def check_entry(entry: Loads, number: int, source: Source) -> None:
    """UserError for the first contradiction in entry `number` of `loads`."""
    for problem in _problems(entry):
        at: Location = ("loads", number, *problem.key)
        if problem.index is not None:
            at = source.place(at, problem.index)
        raise source.error(problem.message, at, advice=problem.advice)


@dataclass(frozen=True)
class _Problem:
    key: tuple[str, ...]
    message: str
    advice: str
    index: int | None = None


def _problems(entry: Loads) -> Iterator[_Problem]:
    yield from _search(entry)
    written = entry.model_fields_set | ({entry.find.over} if entry.find else set())
    for key, others in _EXCLUDES.items():
        for other, why in others.items():
            if {key, other} <= written:
                yield _Problem((other,), f"does not go with `{key}`: {why}", "leave one of the two out")
    for key, (needed, why) in _NEEDS.items():
        if key in written and needed not in written:
            yield _Problem((key,), f"only goes with `{needed}`: {why}", f"write `{needed}` as well, or leave it out")
    if "burstiness" in written and "gamma" not in entry.arrivals:
        yield _Problem(("burstiness",), "only goes with `arrivals: gamma`", "write `arrivals: gamma`, or leave it out")
    yield from _counts(entry, open_loop=bool({"rate", "trace"} & written))


def _counts(entry: Loads, *, open_loop: bool) -> Iterator[_Problem]:
    """0 means no limit, and something must be one; a conversation is sent whole."""
    for i, concurrency in enumerate(entry.concurrency or ()):
        if concurrency == 0 and not open_loop:
            advice = "write 1 or more; 0, no limit, is for an open loop with `rate` or `trace`"
            yield _Problem(("concurrency",), "must be at least 1, got 0", advice, i)
    for i, requests in enumerate(entry.requests or ()):
        if requests == 0 and entry.duration_s is None and entry.trace is None:
            advice = "write 1 or more; 0, as many as fit, needs a `duration_s`"
            yield _Problem(("requests",), "the load would never end", advice, i)
        if 0 < requests < (turns := max(entry.turns)):
            message = f"{requests} are less than one conversation of {turns} turns"
            yield _Problem(("requests",), message, f"write {turns} or more: each turn is a request", i)


def _search(entry: Loads) -> Iterator[_Problem]:
    find = entry.find
    if find is None:
        return
    written = entry.model_fields_set
    for key in ("rate", "rate_to", "trace", "concurrency"):
        if key in written and not (key == "concurrency" and find.over == "rate"):
            message = f"does not go with `find` over the {find.over}, which sets the level of the load itself"
            yield _Problem((key,), message, "leave it out; the search's bounds are `from` and `to`")
    if find.start > find.to:
        yield _Problem(
            ("find", "from"), f"{find.start:g} is more than `to`, {find.to:g}", "the search goes up, so write the smaller one here"
        )
    for key, value in (("from", find.start), ("to", find.to)):
        if find.over == "concurrency" and not (value.is_integer() and value <= 65_536):
            yield _Problem(("find", key), f"must be a whole number of streams up to 65,536, got {value:g}", "streams come one at a time")
