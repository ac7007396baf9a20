"""Checks of values: the `slo`, the `hardware`, and which keys of an entry of `loads` go together.

Every contradiction is one error at the key that is wrong, with what to write instead. Loads are checked by the declarations of their
fields; `enginebench.workload` checks what an expression, a data set or a trace holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from enginebench.domain import Load, field_names, fields_of, kind_of, load_fields
from enginebench.errors import UserError
from enginebench.inputs.source import Location, Source
from enginebench.metrics.slo import Slo, parse
from enginebench.scenario.load_schema import Loads
from enginebench.scenario.schema import SLO


def slo_of(written: SLO | None, source: Source) -> Slo | None:
    """The `slo` of a scenario; None if it has none. UserError at its line for an unknown preset, and for an SLO without limits."""
    try:
        return None if written is None else parse(written.model_dump())
    except UserError as error:
        at: Location = tuple((error.key or "slo").split("."))
        raise source.error(error.message, at if at in source.lines else ("slo",), advice=error.advice) from None


def check_hardware(name: str, source: Source) -> None:
    """UserError at its line for hardware that the catalogue does not know."""
    from enginebench.physics.detect import stated_machine  # reads the catalogue

    try:
        stated_machine(name)
    except UserError as error:
        raise source.error(error.message, ("hardware",), advice=error.advice) from None


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
    kind = kind_of(dict.fromkeys(entry.written, True))
    for key in load_fields():
        if key in entry.written:
            yield from _of_kind(key, kind)
            yield from _beside(key, entry)
    yield from _values(entry, kind)


def _of_kind(key: str, kind: type[Load]) -> Iterator[_Problem]:
    """A key that this kind of load does not have or use."""
    if key in fields_of(kind) and key not in kind.excluded:
        return
    reason = kind.excluded.get(key, kind.sends)
    if kind.key is not None:
        yield _Problem((key,), f"does not go with `{kind.key}`: {reason}", "leave one of the two out")
    else:
        owner = next(other for other in load_fields() if key in fields_of(kind_of({other: True})))
        yield _Problem((key,), f"only goes with `{owner}`: {reason}", f"write `{owner}` as well, or leave it out")


def _beside(key: str, entry: Loads) -> Iterator[_Problem]:
    """A key that another one replaces, or that has no effect without another one."""
    declared = load_fields()[key]
    if declared.replaced_by in entry.written:
        message = f"does not go with `{declared.replaced_by}`, which replaces it"
        yield _Problem((key,), message, "leave one of the two out")
    if declared.needs is None:
        return
    other, value = declared.needs
    if value is not None and value not in entry.axes.get(other, ()):
        yield _Problem((key,), f"only goes with `{other}: {value}`", f"write `{other}: {value}`, or leave it out")
    elif value is None and other not in entry.written:
        yield _Problem((key,), f"only goes with `{other}`, without which it has no effect", f"write `{other}` as well, or leave it out")


def _values(entry: Loads, kind: type[Load]) -> Iterator[_Problem]:
    """Bounds that depend on the kind of load. 0 requests means no limit, so something else must end the load."""
    for key, declared in fields_of(kind).items():
        for i, value in enumerate(entry.axes.get(key, ())):
            if problem := declared.problem(value):
                least = f"more than {declared.above:g}" if declared.least is None else f"{declared.least:g} or more"
                yield _Problem((key,), problem, f"write {least}, or leave it out", i)
    most_turns = max(entry.axes["turns"])
    for i, requests in enumerate(entry.axes.get("requests", ())):
        if requests == 0 and "duration_s" not in entry.axes and not kind.ends:
            yield _Problem(("requests",), "the load would never end", "write 1 or more; 0, as many as fit, needs a `duration_s`", i)
        if 0 < requests < most_turns:
            message = f"{requests} are less than one conversation of {most_turns} turns"
            yield _Problem(("requests",), message, f"write {most_turns} or more: each turn is a request", i)


def _search(entry: Loads) -> Iterator[_Problem]:
    find = entry.find
    if find is None:
        return
    for key in field_names("level"):
        if key in entry.model_fields_set and not (key == "concurrency" and find.over == "rate"):
            message = f"does not go with `find` over the {find.over}, which sets the level of the load itself"
            yield _Problem((key,), message, "leave it out; the search's bounds are `from` and `to`")
    if find.start > find.to:
        yield _Problem(
            ("find", "from"), f"{find.start:g} is more than `to`, {find.to:g}", "the search goes up, so write the smaller one here"
        )
    for key, value in (("from", find.start), ("to", find.to)):
        if find.over == "concurrency" and not (value.is_integer() and value <= 65_536):
            yield _Problem(("find", key), f"must be a whole number of streams up to 65,536, got {value:g}", "write a whole number")
