"""What a reader must know before quoting a figure of a run: random weights, disagreeing outputs, requests that were sent again,
a throughput above the ceiling or far under what the engine usually reaches, prices that apply to no row.

Pure: rows and parities in, sentences out. Does not rank and does not know tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from enginebench.analysis.parity import Parity
from enginebench.analysis.rows import Row
from enginebench.domain.formatting import number
from enginebench.domain.ids import text_of
from enginebench.metrics.context import RunContext
from enginebench.metrics.registry import metrics
from enginebench.records.cell import has_samples
from enginebench.records.launch import LaunchRecord
from enginebench.validity.context import number as counted

if TYPE_CHECKING:
    from enginebench.physics.expectation import Expected

_MOST_OWN = 6


def caveats(rows: Sequence[Row], parities: Sequence[Parity]) -> Iterator[str]:
    """One sentence each. A sentence may repeat."""
    for row in rows:
        if any(cell.record.traits.random_weights for cell in row.cells):
            yield f"{row.deployment.model} has random weights: {_random_weights(row.deployment.model, rows)}"
    yield from _imported(rows)
    stated = [cell for row in rows for cell in row.cells if cell.record.stated is not None and not has_samples(cell.record)]
    for source in dict.fromkeys(cell.record.stated.source for cell in stated if cell.record.stated is not None):
        yield f"figures stated by {source} have no raw samples: {len(stated[0].not_checkable)} validity checks could not be applied"
    yield from dict.fromkeys(note for row in rows for cell in row.cells for note in cell.record.prompts.notes)
    yield from _resent(rows)
    windows = [cell.window.state for row in rows for cell in row.cells if cell.window is not None]
    if short := windows.count("too short to tell"):
        yield f"{short} of {len(windows)} cells are too short to tell whether the server was steady: they are measured whole"
    for model in dict.fromkeys(parity.model for parity in parities):
        yield from _parity(model, [parity for parity in parities if parity.model == model])


def _imported(rows: Sequence[Row]) -> Iterator[str]:
    """What is known to be wrong with how another tool measures, and what nobody said of the server."""
    origins = [cell.record.imported for row in rows for cell in row.cells if cell.record.imported is not None]
    for its in origins:
        yield from (f"{its.tool}: {caveat}" for caveat in its.caveats)
    bare = [cell.record.imported for row in rows if not any(row.figures.values()) for cell in row.cells if cell.record.imported is not None]
    for tool in dict.fromkeys(its.tool for its in bare if its.own):
        names = list(dict.fromkeys(name for its in bare if its.tool == tool for name in its.own))
        more = f" and {len(names) - _MOST_OWN} more" if len(names) > _MOST_OWN else ""
        yield f"{tool}: its figures have no equal here and are kept under its own names: {', '.join(names[:_MOST_OWN])}{more} (`--json`)"
    for what in dict.fromkeys(its.missing for its in origins if its.missing):
        yield f"nobody stated {', '.join(name.replace('_', ' ') for name in what)}: `bench import FILE --set {what[0]}=...`"
    if told := next((its.told for its in origins if its.told), None):
        yield f"stated by the importer: {', '.join(f'{name} {value}' for name, value in told.items())}"


def _resent(rows: Sequence[Row]) -> Iterator[str]:
    """Requests that the load generator sent twice, by engine. It does so only after a keep-alive connection was closed."""
    for engine in dict.fromkeys(row.deployment.engine for row in rows):
        clients = [cell.record.client.health for row in rows if row.deployment.engine == engine for cell in row.cells]
        if resent := sum(int(counted(client, "stale")) for client in clients):
            yield f"{engine} closed keep-alive connections: {resent:,} requests were sent again on new ones"


def _parity(model: str, pairs: Sequence[Parity]) -> Iterator[str]:
    """One sentence if all outputs of all pairs are the same, else one for each pair."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))
    if len(names) > 2 and all(pair.identical == pair.prompts for pair in pairs):
        yield f"parity on {model}: {', '.join(names[:-1])} and {names[-1]} gave the same greedy output for {pairs[0].summary}"
        return
    for pair in pairs:
        who = f"parity on {model}: {pair.a} and {pair.b}"
        yield f"{who} gave the same greedy output for {pair.summary}" if pair.agreed else f"{who}: {pair.summary}"


def _random_weights(model: str, rows: Sequence[Row]) -> str:
    random = [row for row in rows if row.deployment.model == model and any(cell.record.traits.random_weights for cell in row.cells)]
    records = [cell.record for row in random for cell in row.cells]
    if all(record.traits.dense for record in records):
        return "speed is real, text is not"
    if all(record.traits.dense or record.traits.forced_routing for record in records):
        return "speed is real, text is not, and a rule spreads tokens over the experts"
    alike = len({row.deployment.engine for row in random}) > 1 and len({row.deployment.checkpoint for row in random}) == 1
    same = " (the same in every engine)" if alike else ""
    return f"speed is real, but text and expert routing{same} are not those of a trained model: ranked within these weights only"


def contradictions(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each deployment that is faster than its ceiling."""
    found = [row for row in rows if (share := row.figures.get("share_of_ceiling")) is not None and share.value > 1]
    for its in _by_deployment(found):
        worst = max(its, key=lambda row: _value(row, "share_of_ceiling"))
        yield (
            f"{worst.name} on {worst.deployment.model} reaches {_value(worst, 'share_of_ceiling'):.0%} of the ceiling with "
            f"{_at(worst, its)}: either the measurement is wrong, or an assumption of the ceiling: the bandwidth, the size of the weights, "
            "that memory and not a cache holds them"
        )


def _by_deployment(rows: Sequence[Row]) -> list[list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.deployment.model, row.name), []).append(row)
    return list(found.values())


def _value(row: Row, figure: str) -> float:
    return found.value if (found := row.figures.get(figure)) is not None else 0.0


def _at(row: Row, alike: Sequence[Row]) -> str:
    """The load of a row, and how many of the same deployment are like it."""
    others = len(alike) - 1
    return f"{row.load.level_text}, {row.load.shape_text}" + (f" (the worst of {others + 1} such loads)" if others else "")


_SLOW = 0.5
"""Share of what is expected under which a row is said to be slow."""


def slower_than_usual(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for each deployment that reaches less than half of what its engine usually does, with likely causes.

    A caveat, no validity check: the figure may be right, and the expectation is that of other models. None where half of what is expected
    is within its range.
    """
    for its in _by_deployment([row for row in rows if _is_slow(row)]):
        row = min(its, key=lambda each: _value(each, "share_of_expected"))
        if (usual := _usual(row)) is not None:
            span = f"{number(usual.tokens_per_s)} tok/s ({number(usual.low)} to {number(usual.high)}; {usual.basis})"
            yield (
                f"{row.name} on {row.deployment.model} is slower than this engine usually is here: "
                f"{_value(row, 'share_of_expected'):.0%} of {span} with {_at(row, its)}. Likely causes: {'; '.join(_causes(row, usual))}"
            )


def _usual(row: Row) -> Expected | None:
    return next((cell.expected for cell in row.cells if cell.expected is not None), None)


def _is_slow(row: Row) -> bool:
    share, usual = row.figures.get("share_of_expected"), _usual(row)
    return row.sound and share is not None and usual is not None and share.value < min(_SLOW, usual.low / usual.tokens_per_s)


def _causes(row: Row, usual: Expected) -> Iterator[str]:
    running = [gauge.mean for cell in row.cells if (gauge := cell.gauges.get("running")) is not None]
    streams = None if row.load.open_loop else row.load.concurrency
    if running and streams and max(running) < 0.7 * streams:
        yield f"only {max(running):.1f} of {streams} requests ran at once: the engine's limit of sequences or its KV cache"
    if "offloaded" in usual.efficiency.regime:
        yield "host memory with few or slow channels, too few or too many threads"
    if "parallel" in usual.efficiency.regime:
        yield "links between devices without peer-to-peer access"
    if any(cell.record.traits.random_weights for cell in row.cells):
        yield "random weights, whose tokens use other experts than text does"
    yield "a power or clock limit of the device, or other work on it"
    yield "a build or option without the engine's fast kernels (eager mode, another backend, a quantisation that is unpacked)"


def unpriced(rows: Sequence[Row], context: RunContext) -> Iterator[str]:
    """One sentence if prices are given and none of them applies to the hardware of any row."""
    ran = [row for row in rows if row.status == "ok"]
    costs = [name for name, its in metrics().items() if its.scope == "cost"]
    if context.prices is None or not ran or any(row.figures.get(name) for row in ran for name in costs):
        return
    names = dict.fromkeys(machine.device.name for row in ran if (machine := context.machine(row.cells[0].record)) is not None)
    yield f"no price applies to the hardware of this run ({', '.join(names) or 'unknown'}): give one for it, or one for * (any device)"


_NODE_FACTS = ("cpu", "usable_cores", "memory_bytes", "gpus", "kernel", "system")


def of_nodes(launches: Iterable[LaunchRecord]) -> Iterator[str]:
    """What several nodes may have to do with a difference between deployments."""
    placed = [launch for launch in launches if launch.node]
    machines = {launch.node: launch.machine for launch in placed}
    names = ", ".join(sorted(machines))
    used: dict[str, set[str]] = {}
    for launch in placed:
        used.setdefault(text_of(launch.deployment), set()).add(launch.node)
    if len(machines) < 2:
        return
    if differ := [key.replace("_", " ") for key in _NODE_FACTS if len({str(each.get(key)) for each in machines.values()}) > 1]:
        yield f"measured on nodes that differ in {', '.join(differ)} ({names}): compare what ran on the same node"
    elif len({frozenset(nodes) for nodes in used.values()}) > 1:
        yield f"measured on {len(machines)} nodes of one kind ({names}), and not every deployment on the same ones"
