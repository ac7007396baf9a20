"""Sends what a run measures to an OpenTelemetry collector while it goes on: `bench run --otlp URL`. Off by default.

Names are those of OpenTelemetry's semantic conventions for generative AI where these have one (status: development); the rest begins with
`enginebench.`. Of each cell that ends, the distributions over its requests are sent as histograms that were summed up here, so a cell of a
million events costs one small request. A thread sends: who measures never waits for a collector, and one that cannot be reached costs
one sentence. Knows neither stored records nor verdict rules.
"""

from __future__ import annotations

import importlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from enginebench.domain import Cell
from enginebench.errors import UserError
from enginebench.metrics.registry import unit_of
from enginebench.runner.events import CellEnded, CellProgress, CellStarted, Event, RunOpened

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric

    from enginebench.records.samples import Samples

Attributes = dict[str, str | int]

_EVERY_S = 5.0
"""How often a cell that is being measured is reported."""
_TIMEOUT_S = 5.0
_MOST_WAITING = 100
"""Batches; more are dropped while the collector does not answer."""
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_CHUNK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**i) for i in range(14))
"""Bounds of buckets; those of the conventions, with finer ones for the time per chunk."""


class Otlp:
    """Listens to the events of a run. Use it in a `with` block."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url, self._say = _endpoint(url), say
        self._exporter, self._sdk = _exporter(self._url)
        self._waiting: queue.Queue[list[Metric] | None] = queue.Queue(_MOST_WAITING)
        self._failed, self._said = "", False
        self._run: RunOpened | None = None
        self._done = 0
        self._told = 0.0
        self._began_ns = 0
        self._thread = threading.Thread(target=self._send_all, name="OTLP", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._waiting.put_nowait(None)
            self._thread.join(timeout=2 * _TIMEOUT_S)
        except queue.Full:
            pass  # it has not answered for a long time, which was said
        self._exporter.shutdown()
        self._tell_failure()

    def _tell_failure(self) -> None:
        if self._failed and not self._said:
            self._said = True
            self._say(self._failed)

    def __call__(self, event: Event) -> None:
        """Returns at once: the thread sends."""
        self._tell_failure()
        match event:
            case RunOpened():
                self._run, self._done = event, event.stored
                self._put(self._progress(event.planned))
            case CellStarted():
                self._began_ns, self._told = time.time_ns(), 0.0
            case CellProgress() if time.monotonic() - self._told > _EVERY_S:
                self._told = time.monotonic()
                self._put(self._live(event))
            case CellEnded():
                self._done += 1
                self._put([*self._progress(event.planned), *self._ended(event)])

    def _put(self, metrics: list[Metric]) -> None:
        try:
            self._waiting.put_nowait(metrics)
        except queue.Full:
            self._fail("it does not answer")

    def _send_all(self) -> None:
        while (metrics := self._waiting.get()) is not None:
            try:
                if self._exporter.export(self._data(metrics)) != self._sdk.MetricExportResult.SUCCESS:
                    self._fail("it does not answer, or refuses")
            except Exception as error:  # noqa: BLE001  # a run must not end because of its spectators
                self._fail(str(error).split("\n")[0] or type(error).__name__)

    def _fail(self, why: str) -> None:
        """In whichever thread: it is said in that of the run."""
        self._failed = self._failed or f"warning: metrics cannot be sent to {self._url}: {why}; the run goes on, and is stored as always"

    # -- what is sent ---------------------------------------------------------------------------------------------------------------

    def _progress(self, planned: int) -> list[Metric]:
        run: Attributes = {"enginebench.run": self._run.path.name} if self._run is not None else {}
        counts = {"stored": self._done, "planned": planned}
        points = [(float(count), {**run, "enginebench.state": state}) for state, count in counts.items()]
        return [self._gauge("enginebench.run.cells", "{cell}", "Cells of the run.", points)]

    def _live(self, event: CellProgress) -> list[Metric]:
        about, so_far = self._about(event.cell), event.progress
        states = {"sent": so_far.sent, "ended": so_far.ended, "failed": so_far.failed}
        requests = [(float(count), {**about, "enginebench.state": state}) for state, count in states.items()]
        found = [
            self._gauge("enginebench.cell.requests", "{request}", "Requests of the cell so far.", requests),
            self._gauge("enginebench.cell.output_events", "{event}", "Output events so far.", [(float(so_far.events), about)]),
            self._gauge("enginebench.cell.elapsed", "s", "Since the load began.", [(so_far.elapsed_s, about)]),
        ]
        if so_far.pace_s is not None:
            names = ("enginebench.cell.ttft.last", "enginebench.cell.tpot.last")
            texts = ("TTFT of the request that ended last.", "TPOT of the request that ended last.")
            found += [self._gauge(name, "s", text, [(value, about)]) for name, text, value in zip(names, texts, so_far.pace_s, strict=True)]
        return found

    def _ended(self, event: CellEnded) -> list[Metric]:
        about = self._about(event.cell)
        status = self._gauge("enginebench.cell.status", "1", "1, with how the cell ended.", [(1.0, about | _status(event))])
        if event.samples is None or not len(event.samples) or event.result is None:
            return [status]
        figures = {name: value for name, value in event.result.figures.items() if value is not None}
        units = {name: unit_of(name) for name in figures}
        own = [
            self._gauge(f"enginebench.{name}", units[name], "A figure of the cell.", [(float(value), about)])
            for name, value in figures.items()
        ]
        return [status, *self._distributions(event.samples, about), *own]

    def _distributions(self, its: Samples, about: Attributes) -> list[Metric]:
        ok, took = its.ok, (its.end_ns - its.sent_ns) / 1e9
        sent = its.sent_ns > 0
        errors = sorted({outcome for outcome, was in zip(its.outcome, sent, strict=True) if was and outcome != "ok"})
        kinds = np.array(its.outcome, dtype=object)
        durations = [(took[sent & ok], about)] + [(took[sent & (kinds == why)], {**about, "error.type": why}) for why in errors]
        first = (its.edge(last=False) - its.sent_ns)[ok & (its.events > 0)] / 1e9
        tokens = [
            (counts[ok & (counts >= 0)].astype(float), {**about, "gen_ai.token.type": kind})
            for kind, counts in (("input", its.input_tokens), ("output", its.output_tokens))
        ]
        return [
            self._histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS, durations),
            self._histogram("gen_ai.client.operation.time_to_first_chunk", "s", "First output event - sent.", _FIRST, [(first, about)]),
            self._histogram(
                "gen_ai.client.operation.time_per_output_chunk", "s", "Gaps between output events.", _PER_CHUNK, [(gaps_s(its), about)]
            ),
            self._histogram("gen_ai.client.token.usage", "{token}", "Tokens as the server counted them.", _TOKENS, tokens),
        ]

    def _about(self, cell: Cell) -> Attributes:
        run, deployment = self._run, cell.deployment
        named: Attributes = (
            {}
            if run is None
            else {
                "enginebench.run": run.path.name,
                "enginebench.deployment": run.deployment_name(deployment),
                "enginebench.load": run.load_name(cell.load),
            }
        )
        return {
            "gen_ai.operation.name": "chat" if cell.load.api == "chat" else "text_completion",
            "gen_ai.provider.name": deployment.engine, "gen_ai.request.model": deployment.model,
            **named, "enginebench.cell": cell.id, "enginebench.repeat": cell.repeat,
        }  # fmt: skip

    def _gauge(self, name: str, unit: str, text: str, points: Sequence[tuple[float, Mapping[str, str | int]]]) -> Metric:
        now, sdk = time.time_ns(), self._sdk
        made: Metric = sdk.Metric(name, text, unit, sdk.Gauge([sdk.NumberDataPoint(about, now, now, value) for value, about in points]))
        return made

    def _histogram(
        self, name: str, unit: str, text: str, bounds: Sequence[float], groups: Sequence[tuple[npt.NDArray[Any], Attributes]]
    ) -> Metric:
        now, sdk = time.time_ns(), self._sdk
        points = [
            sdk.HistogramDataPoint(
                about, self._began_ns, now, len(values), float(values.sum()), bucket_counts(values, bounds), list(bounds),
                float(values.min()), float(values.max()),
            )
            for values, about in groups
            if len(values)
        ]  # fmt: skip
        made: Metric = sdk.Metric(name, text, unit, sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE))
        return made

    def _data(self, metrics: Sequence[Metric]) -> Any:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        sdk, scope = self._sdk, InstrumentationScope("enginebench")
        resource = Resource.create({"service.name": "enginebench"})
        return sdk.MetricsData([sdk.ResourceMetrics(resource, [sdk.ScopeMetrics(scope, list(metrics), "")], "")])


def bucket_counts(values: npt.NDArray[Any], bounds: Sequence[float]) -> list[int]:
    """How many values are in (-inf, bounds[0]], (bounds[0], bounds[1]], ..., (bounds[-1], inf)."""
    counts = np.bincount(np.searchsorted(bounds, values, side="left"), minlength=len(bounds) + 1)
    return [int(count) for count in counts]


def gaps_s(its: Samples) -> npt.NDArray[np.float64]:
    """Between the output events of each request that succeeded."""
    owner = np.repeat(np.arange(len(its)), np.diff(its.offsets))
    within = (owner[1:] == owner[:-1]) & its.ok[owner[1:]]
    return np.asarray(np.diff(its.event_ns)[within] / 1e9, dtype=np.float64)


def _status(event: CellEnded) -> Attributes:
    its: Attributes = {"enginebench.status": event.record.status}
    return its if event.result is None else {**its, "enginebench.verdict": event.result.verdict}


def _endpoint(url: str) -> str:
    """With the usual path, if it has none. UserError if it is no URL."""
    found = urlsplit(url)
    if found.scheme not in ("http", "https") or not found.hostname:
        raise UserError(f"'{url}' is no URL of a collector", key="--otlp", advice="write http://HOST:4318")
    return url if found.path.strip("/") else f"{url.rstrip('/')}/v1/metrics"


def _exporter(endpoint: str) -> tuple[Any, Any]:
    """The exporter, and the module with the kinds of data."""
    try:
        http: Any = importlib.import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
        sdk: Any = importlib.import_module("opentelemetry.sdk.metrics.export")
    except ImportError as error:
        raise UserError(f"metrics cannot be sent from here: {error}", key="--otlp", advice="pip install 'enginebench[otlp]'") from None
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what fails is said once, in one sentence
    return http.OTLPMetricExporter(endpoint=endpoint, timeout=_TIMEOUT_S), sdk
