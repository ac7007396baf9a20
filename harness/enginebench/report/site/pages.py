"""The pages of a site beside those of the runs: home, and the comparison of any two runs. Returns text and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enginebench import __version__
from enginebench.domain import JSON, plain_object
from enginebench.metrics.registry import Need, metrics
from enginebench.report.chart_marks import swatch
from enginebench.report.columns import column
from enginebench.report.page import SITE_POLICY, page_environment
from enginebench.report.site.assets import place
from enginebench.report.site.entry import Entry
from enginebench.report.site.trends import Chart, charts
from enginebench.report.styles import Style, hues, styles

SITE_SCHEMA = 1
"""Version of data/index.json. Raise it when a reader of the old form would misread the new one."""
_MAIN = ("output_throughput", "goodput", "ttft_p50", "tpot_p50")
_SHOWN = 4
"""Charts of a scenario; further ones are folded."""


@dataclass(frozen=True)
class Scenario:
    """A scenario with runs: its newest answer, and its figures over time."""

    name: str
    newest: Entry
    runs: int
    deployments: tuple[str, ...]
    charts: tuple[Chart, ...]
    folded: tuple[Chart, ...]
    changes: tuple[str, ...] = ()
    """What changed lastingly from which run on, in sentences."""


@dataclass(frozen=True)
class Running:
    """A run that is going on."""

    id: str
    name: str
    step: str
    deployment: str
    stored: int
    planned: int


def home_page(
    entries: Sequence[Entry], changes: Mapping[str, Sequence[str]], *, live: bool = False, running: Sequence[Running] = ()
) -> str:
    """entries: oldest first. changes: name of a scenario -> sentences on lasting changes. live: the page follows the folder."""
    from markupsafe import Markup

    read = [each for each in entries if each.answer]
    by_name = {name: [each for each in read if each.name == name] for name in _newest_first(read)}
    looks = styles((point.deployment, point.engine) for its in by_name.values() for point in its[-1].points)
    return page_environment().get_template("site/home.html.j2").render(
        place=place(0, "site"), policy=SITE_POLICY, live=live, entries=entries[::-1], version=__version__,
        newest=next((each for each in reversed(entries) if each.answer), None), running=running,
        scenarios=[_scenario(name, its, looks, changes.get(name, ())) for name, its in by_name.items()],
        css=Markup(hues(looks)),  # noqa: S704  # our own
        chart=lambda its: Markup(its.svg),  # noqa: S704  # static_chart escapes
        swatch=lambda name: Markup(swatch(looks[name].slot, looks[name].symbol)),  # noqa: S704  # our own markup
    )  # fmt: skip


def _newest_first(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(each.name for each in reversed(entries)))


def _scenario(name: str, runs: Sequence[Entry], looks: Mapping[str, Style], changes: Sequence[str]) -> Scenario:
    drawn = charts(runs, looks)
    names = tuple(dict.fromkeys(point.deployment for point in runs[-1].points))
    return Scenario(name, runs[-1], len(runs), names, tuple(drawn[:_SHOWN]), tuple(drawn[_SHOWN:]), tuple(changes))


def compare_page() -> str:
    return (
        page_environment().get_template("site/compare.html.j2").render(place=place(0, "compare"), policy=SITE_POLICY, version=__version__)
    )


def index_json(entries: Sequence[Entry]) -> str:
    """data/index.json: every run, newest first, with the paths of its page and data; what the figures of the data mean."""
    runs = [{**plain_object(each), "page": run_page_path(each.id), "data": run_data_path(each.id)} for each in reversed(entries)]
    for run in runs:
        del run["points"]
    document: JSON = {"schema": SITE_SCHEMA, "enginebench": __version__, "runs": list(runs), "figures": _figures()}
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def run_page_path(slug: str) -> str:
    return f"runs/{slug}.html"


def run_data_path(slug: str) -> str:
    return f"data/runs/{slug}.json"


def _figures() -> dict[str, JSON]:
    """Figure -> heading, unit as shown and its factor, which direction is good, what two runs must share for it to be compared."""
    found: dict[str, JSON] = {}
    for metric in metrics().values():
        for figure in metric.figures:
            its = column(figure)
            found[figure] = {
                "metric": metric.name, "title": its.label, "unit": its.unit, "factor": its.factor, "better": metric.better,
                "per_event": metric.scope == "event", "needs_slo": Need.SLO in metric.needs, "main": figure in _MAIN,
            }  # fmt: skip
    return found
