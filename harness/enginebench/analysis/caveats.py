"""What a reader must know before he quotes a figure of a run: random weights, engines that disagree, settings that did not take.

Pure: rows, launch records and agreements in, sentences out. Ranks nothing (`enginebench.analysis.ranking` does) and knows no table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enginebench.analysis.ranking import Parity
from enginebench.analysis.rows import Row
from enginebench.records.store import LaunchRecord
from enginebench.validity.delivery import number


def caveats(rows: Sequence[Row], launches: Mapping[str, LaunchRecord], agreements: Sequence[Parity]) -> Iterator[str]:
    """One sentence each; the same sentence may come more than once."""
    for row in rows:
        if any(cell.record.random_weights for cell in row.cells):
            yield f"{row.deployment.model} has random weights: {_of_random(row.deployment.model, rows)}"
    stated = [cell for row in rows for cell in row.cells if cell.record.stated is not None]
    for source in dict.fromkeys(cell.record.stated.source for cell in stated if cell.record.stated is not None):
        yield f"figures stated by {source} have no raw samples: {len(stated[0].not_checkable)} validity checks could not be applied"
    yield from _of_resent(rows)
    windows = [cell.window.state for row in rows for cell in row.cells if cell.window is not None]
    if short := windows.count("too short to tell"):
        yield f"{short} of {len(windows)} cells are too short to tell whether the server was steady: they are measured whole"
    for model in dict.fromkeys(parity.model for parity in agreements):
        yield from _of_agreement(model, [parity for parity in agreements if parity.model == model])
    for launch in launches.values():
        for difference in launch.differences:
            asked, got = difference.get("asked"), difference.get("got")
            yield f"{launch.deployment.engine} was asked for {difference.get('name')} {asked} and says that it has {got}"


def _of_resent(rows: Sequence[Row]) -> Iterator[str]:
    """What the load generator sent twice, by engine: the one thing that it ever does, and never in secret."""
    for engine in dict.fromkeys(row.deployment.engine for row in rows):
        clients = [cell.record.client for row in rows if row.deployment.engine == engine for cell in row.cells]
        if resent := sum(int(number(client, "stale")) for client in clients):
            yield f"{engine} closed connections that it had promised to keep: {resent:,} requests that met one were sent again on a new one"


def _of_agreement(model: str, pairs: Sequence[Parity]) -> Iterator[str]:
    """One sentence if every pair said the same throughout, else one for each pair."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))
    if len(names) > 2 and all(pair.identical == pair.prompts for pair in pairs):
        yield f"parity on {model}: {', '.join(names[:-1])} and {names[-1]} gave the same greedy output for {pairs[0].summary}"
        return
    for pair in pairs:
        who = f"parity on {model}: {pair.a} and {pair.b}"
        yield f"{who} gave the same greedy output for {pair.summary}" if pair.agreed else f"{who}: {pair.summary}"


def _of_random(model: str, rows: Sequence[Row]) -> str:
    """What random weights mean for the figures of a model."""
    mine = [row for row in rows if row.deployment.model == model and any(cell.record.random_weights for cell in row.cells)]
    records = [cell.record for row in mine for cell in row.cells]
    if all(record.dense for record in records):
        return "its speed is real, its text is not"
    if all(record.dense or record.forced_routing for record in records):
        return "its speed is real, its text is not, and a rule spreads its tokens over the experts"
    alike = len({row.deployment.engine for row in mine}) > 1 and len({row.deployment.checkpoint for row in mine}) == 1
    same = ", though the same in every engine" if alike else ""
    return f"its speed is real, its text and its expert routing are not a trained model's{same}, so nothing is ranked"
