"""What large comparisons cost: the figures of docs/scale.md that can be measured on one machine.

    python benchmarks/scale.py                        # index of 100,000 cells, samples, uploads: about five minutes
    python benchmarks/scale.py --site-runs 1000       # also a site of so many runs: half an hour
    python benchmarks/scale.py --cells 0 --units 200  # what a unit costs through Ray: six minutes on a quiet machine
    python benchmarks/scale.py --index postgresql://USER@HOST/DATABASE   # the index in that database, which must be empty

Times are of the CPU of this process (and its threads), so other work on the machine changes them little; those of a database are wall time.
The runs of the index are copies of one run with other names and days: what is timed is the index, not the reading of runs, which is timed
on its own.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import enginebench as eb
from enginebench.analysis.index.duckdb_file import DuckDBFile
from enginebench.analysis.index.sql import SqlIndex
from enginebench.analysis.index.tables import IndexStore, Tables, lines_of, stored_run
from enginebench.analysis.run_summary import RunSummary, summarise_run
from enginebench.domain import Cell
from enginebench.domain.formatting import size
from enginebench.machine.folders import HOME_VARIABLE
from enginebench.records.remote.filesystem import RemoteFolder
from enginebench.records.remote.mirror import Mirror

sys.path.insert(0, str(Path(__file__).parent))
from stored_runs import cells, make_run, make_runs

CELLS = 16
"""Of each run: a small nightly job."""
BATCH = 50
"""Runs that are stored at once."""
FIRST = dt.date(2020, 1, 1)


@contextmanager
def timed(what: str, per: int = 0, unit: str = "") -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    each = f", {cpu / per * 1e3:.2f} ms a {unit}" if per else ""
    print(f"{what}: {cpu:.2f} s of CPU{each} ({wall:.1f} s of wall time)", flush=True)


def expect(found: int, wanted: int) -> None:
    if found != wanted:
        sys.exit(f"{found:,} were read, {wanted:,} were stored")


def plan() -> list[Cell]:
    return list(cells(2, 2, 1))


def copies(summary: RunSummary, count: int) -> Iterator[RunSummary]:
    for i in range(count):
        name, at = f"night-{i:06}", f"{FIRST + dt.timedelta(days=i)}T03:00:00+00:00"
        rows = tuple(replace(row, run=name) for row in summary.rows)
        yield replace(summary, run=replace(summary.run, id=name, path=Path(name), started_at=at), rows=rows)


def fill(store: IndexStore, summary: RunSummary, runs: int) -> None:
    every = list(copies(summary, runs))
    for at in range(0, runs, BATCH):
        batch = every[at : at + BATCH]
        store.store(lines_of(batch, {each.run.id: "stamp" for each in batch}))


def index(folder: Path, url: str | None, count: int) -> None:
    """An index of so many cells, and what asks it."""
    run = folder / "one"
    make_run(run, plan(), 32)
    with timed("reading a run for the index, the first time", CELLS, "cell"):
        summary = summarise_run("one", run)
    runs = count // CELLS
    store: IndexStore = SqlIndex.open(url, "scale") if url else DuckDBFile(folder / "scale.duckdb")
    store.known()  # which makes a file of DuckDB, if there is none
    print(f"index of {runs:,} runs with {runs * CELLS:,} cells and {runs * len(summary.rows):,} rows:")
    with timed("  storing them", runs, "run"):
        fill(store, summary, runs)
    if not url:
        print(f"  size of the database: {size((folder / 'scale.duckdb').stat().st_size)}")
    with timed("  what bench list needs"):
        known = [stored_run(name, Path(name), data) for name, (_, data) in store.known().items()]
    expect(len(known), runs)
    with timed("  one figure over all rows"):
        found = Tables(store.rows(None), store.figures(None, ["ttft_p99"])).stored_rows()
    expect(len(found), runs * len(summary.rows))
    with timed("  what bench history needs of all runs"):
        figures = ["output_throughput", "ttft_p50", "tpot_p50"]
        nights = Tables(store.rows(None), store.figures(None, figures), store.facts(None)).night_runs(known)
    expect(len(nights), runs)
    with timed("  storing one more run"):
        store.store(lines_of([replace(summary, run=replace(summary.run, id="last"))], {"last": "stamp"}))


def samples(folder: Path) -> None:
    """The size of raw samples and what it costs to read them."""
    run = eb.open_run(folder / "one").folder
    files = list((run.path / "samples").glob("*.parquet"))
    requests, written = run.requests(), sum(file.stat().st_size for file in files)
    events = sum(len(found.event_ns) for cell in run.cells() if (found := run.samples(cell.id)) is not None)
    print(f"samples: {written / requests:.0f} bytes a request of {events / requests:.0f} events, {written / events:.2f} bytes an event")
    with timed("  reading and hashing them", requests, "request"):
        for cell in run.cells():
            run.samples(cell.id)


class Counted(RemoteFolder):
    """Counts what is asked of the store."""

    asked = 0

    def upload(self, file: Path, name: str):  # type: ignore[no-untyped-def]
        self.asked += 2  # the file, and a look at its version
        return super().upload(file, name)


def uploads(folder: Path) -> None:
    (folder / "store").mkdir()
    mirror = Mirror.of(f"file://{folder}/store")
    mirror.remote = Counted(mirror.remote.url)
    make_run(mirror.local / "one", plan(), 32)
    with timed("uploading a run to a folder", CELLS, "cell"):
        mirror.push("one")
    print(f"  {mirror.remote.asked / CELLS:.1f} requests to the store a cell, and one for the lease")


def site(folder: Path, runs: int) -> None:
    make_runs(folder / "runs", runs)
    with timed(f"a site of {runs:,} runs, the first time", runs, "run"):
        made = eb.build_site(folder / "runs", folder / "public")
    print(f"  {size(made.size)} in {len(made.written):,} files, index.html {size((folder / 'public' / 'index.html').stat().st_size)}")
    with timed("  again, when nothing has changed"):
        eb.build_site(folder / "runs", folder / "public")
    with timed("  bench list of its folder"):
        eb.run_index(folder / "runs")


def units(folder: Path, on: str, count: int) -> None:
    """What a unit costs through a placement, beside its engine and its load: the fake engine, one unit at a time on each node.

    Wall time between the starts of two servers on a node, less what the record of the first one explains. Busy machines make it longer.
    """
    (folder / "units.yaml").write_text(
        "name: units\ndeployments: [{engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 2}}]\n"
        f"loads: [{{concurrency: 1, input_tokens: 8, output_tokens: 4, requests: 4, warmup_requests: 0}}]\nrepeats: {count}\n"
    )
    with timed(f"{count} units through --on {on}, the driver's part", count, "unit"):
        run = eb.run(eb.plan(folder / "units.yaml", elsewhere=True), results=folder / "placed", on=on).folder
    walls, nodes = {cell.launch_id: cell.wall_s or 0.0 for cell in run.cells()}, defaultdict(list)
    expect(sum(cell.status == "ok" for cell in run.cells()), count)
    for launch in sorted(run.launches().values(), key=lambda each: each.started_at):
        its = launch.startup
        busy = sum(each or 0.0 for each in (its.start_s, its.first_generation_s, its.stop_s)) + walls[launch.id]
        nodes[launch.node].append((dt.datetime.fromisoformat(launch.started_at).timestamp(), busy))
    spent = sorted(b - a - busy for each in nodes.values() for (a, busy), (b, _) in pairwise(each))
    tenth, half, most = (spent[int(len(spent) * share)] for share in (0.1, 0.5, 0.9))
    own = sorted(busy for each in nodes.values() for _, busy in each)[count // 2]
    print(f"  beside its engine and load ({own:.2f} s), a unit takes {half:.2f} s (median; {tenth:.2f} to {most:.2f} for 8 of 10)")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the index")
    parser.add_argument("--index", metavar="URL", help="the index in this database")
    parser.add_argument("--units", type=int, default=0, help="units through a placement")
    parser.add_argument("--on", default="local-ray", help="the placement: local, local-ray, ray://HOST:10001, slurm")
    parser.add_argument("--site-runs", type=int, default=0, help="runs of the site")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="enginebench-scale-") as name:
        os.environ[HOME_VARIABLE] = f"{name}/home"
        folder = Path(name)
        if given.cells:
            index(folder, given.index, given.cells)
            samples(folder)
            uploads(folder)
        if given.units:
            units(folder, given.on, given.units)
        if given.site_runs:
            site(folder, given.site_runs)


if __name__ == "__main__":
    main()
