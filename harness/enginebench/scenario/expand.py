"""From the validated file to plain deployments and loads: multiplies out sweeps, resolves checkpoints and options.

Makes every check that needs an adapter, so that a wrong engine, precision, option or path is an error with a line number before
anything starts.
"""

import itertools
import json
import math
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from enginebench.adapter import Adapter
from enginebench.domain import Deployment, Load, Parallelism, Runtime, Search, Speculation, plain
from enginebench.domain.container import Container
from enginebench.domain.precisions import UNSTATED
from enginebench.domain.repeats import FIRST_LOOK, AutoRepeats
from enginebench.engines.registry import Registry
from enginebench.errors import did_you_mean
from enginebench.inputs.source import Location, Source, read
from enginebench.inputs.validation_errors import as_user_error
from enginebench.scenario.checkpoint import CONVERTING, Checkpoints
from enginebench.scenario.defaults import OPEN_STREAMS, load_at, probe_requests
from enginebench.scenario.loads import Chosen, LoadGroups
from enginebench.scenario.options import Axes, combinations, option_axes, size
from enginebench.scenario.quality import quality_of
from enginebench.scenario.rules import check_hardware, slo_of
from enginebench.scenario.scenario import ParityCheck, Scenario
from enginebench.scenario.schema import Deployments, ScenarioFile

STARTED: tuple[Runtime, ...] = ("process", "docker")
"""Runtimes with a server that we start. `bench run` can replace one by the other."""
MAX_CELLS = 200_000
"""A larger sweep is taken for a mistake: at one second per cell it takes more than two days."""


NO_SEARCH = "auto does not go with `find`, whose levels differ from one restart to the next"
UNKNOWN_CONTEXT = 4096
"""Tokens per request that a server must hold if the lengths of a data set are unknown and the scenario does not set max_context."""


def load_scenario(file: Path, registry: Registry, *, runtime: Runtime | None = None, hardware: str | None = None) -> Scenario:
    """Read, check and expand a scenario file. UserError with file, line and key for anything wrong in it.

    runtime: 'process' or 'docker', used for every server that the scenario starts in one of the two. hardware: instead of its own.
    """
    return expand(read(file), registry, runtime=runtime, hardware=hardware)


def expand(source: Source, registry: Registry, *, runtime: Runtime | None = None, hardware: str | None = None) -> Scenario:
    """As `load_scenario`, for a source that has been read."""
    try:
        written = ScenarioFile.model_validate(source.data)
    except ValidationError as error:
        raise as_user_error(error, source, ScenarioFile) from None
    if runtime is not None:
        written = written.model_copy(update={"deployments": [_started_as(runtime, entry) for entry in written.deployments]})
    if written.hardware is not None and hardware is None:
        check_hardware(written.hardware, source)
    slo = slo_of(written.slo, source)
    labels = [entry.label for entry in written.deployments if entry.label]
    loads = LoadGroups(source, written.loads, probe_requests(slo))
    expansion = _Expansion(source, registry, written, loads, Checkpoints(source, written))
    expansion.check_size()
    expansion.check_goals()
    expansion.loads.check_contents()
    entries, key = enumerate(written.deployments), _Keys()
    found = {key.of(served.deployment): (served, i) for i, entry in entries for served in expansion.of(entry, i)}
    expansion.loads.check_all_used()
    for served, i in found.values():
        if not served.loads and not served.searches:
            d = served.deployment
            name = " ".join(filter(None, (d.engine, d.model, d.known_precision, d.runtime)))
            raise source.error(f"nothing is sent to {name}: every `only` under `loads` excludes it", ("deployments", i))
        if len({search.base for search in served.searches}) < len(served.searches):
            raise source.error("two searches begin with the same load", ("loads",), advice="keep the one with the wider bounds")
    deployments, loads_of, searches = zip(*(served for served, _ in found.values()), strict=True) if found else ((), (), ())
    return Scenario(
        name=written.name, deployments=deployments, loads=loads_of, searches=searches, slo=slo, repeats=_first(written),
        auto=_auto(written), equal_within=written.equal_within,
        parity=ParityCheck(**written.parity.model_dump()) if written.parity else None,
        quality=quality_of(written.quality, source, labels), title=written.title,
        description=written.description, client_nodes=written.client_nodes,
        exclusive=written.placement is None or written.placement.exclusive,
        cores=(written.placement.cores if written.placement else None) or 0, hardware=hardware or written.hardware,
        hardware_by_command=bool(hardware),
        file=source.file, text=source.text,
    )  # fmt: skip


def _auto(written: ScenarioFile) -> AutoRepeats | None:
    its = written.repeats
    return None if isinstance(its, int) else AutoRepeats(its.most, its.budget_s)


def _first(written: ScenarioFile) -> int:
    return written.repeats if isinstance(written.repeats, int) else FIRST_LOOK


def _most(written: ScenarioFile) -> int:
    return written.repeats if isinstance(written.repeats, int) else written.repeats.most


@dataclass
class _Keys:
    """Hashable keys of deployments, equal for equal ones. Options and containers are shared by many, so each is written as JSON once."""

    _texts: dict[int, tuple[object, str]] = field(default_factory=dict)

    def of(self, deployment: Deployment) -> tuple[object, ...]:
        values = ((each.name, getattr(deployment, each.name)) for each in fields(deployment))
        return tuple(self._text(value) if name in ("options", "container", "loras", "node") else value for name, value in values)

    def _text(self, value: object) -> str:
        if id(value) not in self._texts:
            self._texts[id(value)] = value, json.dumps(plain(value), sort_keys=True)  # the value is kept, and with it its id
        return self._texts[id(value)][1]


def _started_as(runtime: Runtime, entry: Deployments) -> Deployments:
    """The entry with this runtime for every server that we start; one with both runtimes is started once."""
    runtimes = [runtime if one in STARTED else one for one in entry.runtime]
    return entry.model_copy(update={"runtime": list(dict.fromkeys(runtimes))})


class _Served(NamedTuple):
    deployment: Deployment
    loads: tuple[Load, ...]
    searches: tuple[Search, ...]


@dataclass(frozen=True)
class _Variant:
    """One engine, model, precision and runtime of an entry, with the place of each in the file."""

    engine: str
    model: str
    precision: str
    runtime: Runtime
    label: str | None
    at: Location
    places: Mapping[str, Location]
    """Of engine, model, precision and runtime."""

    @property
    def chosen(self) -> Chosen:
        return {key: getattr(self, key) for key in ("engine", "model", "precision", "runtime", "label")}


def _speculations(entry: Deployments) -> Iterator[Speculation | None]:
    """Every way of speculation of an entry; None: without."""
    for each in entry.speculation or [None]:
        yield from (None,) if each is None else each.points()


@dataclass(frozen=True)
class _Expansion:
    source: Source
    registry: Registry
    written: ScenarioFile
    loads: LoadGroups
    checkpoints: Checkpoints

    def check_size(self) -> None:
        """UserError for a sweep of too many cells, before it is built."""
        cells = 0
        for number, entry in enumerate(self.written.deployments):
            degrees = (entry.tp, entry.pp, entry.dp_replicas, entry.attention_dp, entry.ep, entry.max_context, entry.max_concurrency)
            spread = math.prod(len(values or [0]) for values in (*degrees, entry.container, entry.node, entry.nodes))
            spread *= len(list(_speculations(entry)))
            named = len(entry.engine) * len(entry.model) * len(entry.precision) * len(entry.runtime)
            if named * spread > MAX_CELLS:  # checked first, because iterating over so many takes too long
                raise self._too_many(named * spread, ("deployments", number))
            for variant in self._variants(entry, number):
                options = self._axes(entry, self._adapter(variant.engine, variant.places["engine"]), variant.at)
                cells += spread * size(options) * self.loads.size(variant.chosen) * _most(self.written)
        if cells > MAX_CELLS:
            raise self._too_many(cells, ("deployments",))

    def _too_many(self, cells: int, at: Location) -> Exception:
        return self.source.error(
            f"the sweep has {cells:,} cells, more than {MAX_CELLS:,}", at, advice="list fewer values, or split the scenario"
        )

    def check_goals(self) -> None:
        for number, group in enumerate(self.written.loads):
            if group.find and self.written.slo is None:
                advice = "write one at the top level, e.g. slo: {ttft_ms: 500, tpot_ms: 50}"
                raise self.source.error("a search needs an `slo`", ("loads", number, "find"), advice=advice)
            if group.find and _auto(self.written) is not None:
                raise self.source.error(NO_SEARCH, ("repeats",), advice="write a number of repeats, or list the levels in place of `find`")

    def of(self, entry: Deployments, number: int) -> Iterator[_Served]:
        """Every deployment of entry number `number`, with its loads and searches."""
        spread = itertools.product(entry.tp, entry.pp, entry.dp_replicas, entry.attention_dp, entry.ep)
        parallelisms = [Parallelism(*degrees) for degrees in spread]
        for variant in self._variants(entry, number):
            at, adapter = variant.at, self._adapter(variant.engine, variant.places["engine"])
            loads, searches = self.loads.of(variant.chosen)
            heaviest = (*loads, *(load_at(search, search.stop) for search in searches))
            self._check_apis(adapter, heaviest, variant.places["engine"])
            self._check_runtime(adapter, entry, variant)
            precision_at = variant.places["precision"]
            if adapter.precisions is not None and variant.precision not in adapter.precisions:
                advice = did_you_mean(variant.precision, adapter.precisions)
                raise self.source.error(f"{adapter.title} has no precision '{variant.precision}'", precision_at, advice=advice)
            attached = variant.runtime == "attach"
            checkpoint = self.checkpoints.reference(
                adapter, variant.model, variant.precision, variant.places["model"], precision_at, attached=attached,
                converted=not CONVERTING.isdisjoint(entry.options),
            )  # fmt: skip
            contexts = self._contexts(entry, heaviest, at)
            streams = entry.max_concurrency or [max((load.concurrency or OPEN_STREAMS for load in heaviest), default=1)]
            options = combinations(self._axes(entry, adapter, at), adapter, self.source, (*at, "options"))
            containers = entry.container if variant.runtime == "docker" else None
            settings = [each.container() for each in containers] if containers else [Container()]
            speculations = [self._speculation(adapter, each, variant) for each in _speculations(entry)]
            nodes = [{key: str(value) for key, value in labels.items()} for labels in entry.node or [{}]]
            for parallelism, context, concurrency, chosen, container, speculation, node, count in itertools.product(
                parallelisms, contexts, streams, options, settings, speculations, nodes, entry.nodes
            ):
                deployment = Deployment(
                    engine=variant.engine, model=variant.model, precision=variant.precision, checkpoint=checkpoint, runtime=variant.runtime,
                    parallelism=parallelism, max_context=context, max_concurrency=concurrency, options=chosen, url=entry.url,
                    api_key_env=entry.api_key_env, api_key_header=entry.api_key_header, ca_file=entry.ca_file,
                    ready_timeout_s=entry.ready_timeout_s, label=entry.label,
                    container=container, speculation=speculation, loras=entry.loras, node=node, nodes=count,
                )  # fmt: skip
                yield _Served(deployment, loads, searches)

    def _variants(self, entry: Deployments, number: int) -> Iterator[_Variant]:
        at: Location = ("deployments", number)
        keys = ("engine", "model", "precision", "runtime")
        for chosen in itertools.product(*(enumerate(getattr(entry, key)) for key in keys)):
            places = {key: self.source.place((*at, key), i) for key, (i, _) in zip(keys, chosen, strict=True)}
            engine, model, precision, runtime = (value for _, value in chosen)
            if precision == UNSTATED and runtime != "attach":
                adapter = self._adapter(engine, places["engine"])
                precision = self.checkpoints.precision(adapter, model, places["model"], at)
            yield _Variant(engine, model, precision, runtime, entry.label, at, places)

    def _speculation(self, adapter: Adapter, asked: Speculation | None, variant: _Variant) -> Speculation | None:
        """With the checkpoint of its draft in place of what the scenario calls it."""
        at = (*variant.at, "speculation")
        if asked is not None and variant.runtime == "attach":
            advice = "leave it out: what the server counts of its speculation is shown all the same"
            raise self.source.error("an attached server was started with a speculation of its own", at, advice=advice)
        if asked is None or asked.draft is None:
            return asked
        draft, precision = self.checkpoints.draft(adapter, asked.draft, variant.precision, at)
        return replace(asked, draft=draft, draft_precision=precision)

    def _axes(self, entry: Deployments, adapter: Adapter, at: Location) -> Axes:
        return option_axes(entry.options, adapter, self.source, (*at, "options"))

    def _contexts(self, entry: Deployments, loads: Sequence[Load], at: Location) -> list[int]:
        """max_context as written, if each is enough for every load; otherwise as large as the loads need."""
        parity, quality = self.written.parity, self.written.quality
        known = [size for load in loads if (size := self.loads.largest(load)) is not None]
        longest = max(
            [*known, parity.input_tokens + parity.output_tokens if parity else 0, quality.perplexity.window + 1 if quality else 0, 1]
        )
        for i, context in enumerate(entry.max_context or []):
            if context < longest:
                message = f"{context} tokens are less than the {longest} (input + output) of the longest request sent there"
                place = self.source.place((*at, "max_context"), i)
                raise self.source.error(message, place, advice=f"write {longest} or more, or leave it out")
        counted = len(known) == len(loads) and not any(load.images for load in loads)  # what an image has, only the server knows
        return entry.max_context or [longest if counted else max(longest, UNKNOWN_CONTEXT)]

    def _adapter(self, engine: str, at: Location) -> Adapter:
        if engine not in self.registry:
            raise self.source.error(f"there is no engine '{engine}'", at, advice=did_you_mean(engine, self.registry))
        return self.registry[engine]

    def _check_apis(self, adapter: Adapter, loads: Sequence[Load], at: Location) -> None:
        for api in dict.fromkeys(load.api for load in loads):
            if api not in adapter.apis:
                raise self.source.error(f"{adapter.title} does not serve the {api} route", at, advice=f"it has: {', '.join(adapter.apis)}")

    def _check_runtime(self, adapter: Adapter, entry: Deployments, variant: _Variant) -> None:
        at, runtime = variant.at, variant.runtime
        containers = ("docker",) if "process" in adapter.runtimes else ()  # every server that is a process can run in one
        known = (*adapter.runtimes, *containers)
        if runtime not in known:
            advice = f"it has: {', '.join(known)}"
            raise self.source.error(f"{adapter.title} has no runtime '{runtime}'", variant.places["runtime"], advice=advice)
        if runtime == "attach" and entry.url is None:
            raise self.source.error("`runtime: attach` needs the server's `url`", at, advice="e.g. url: http://127.0.0.1:8000")
        for name, path in entry.loras.items():
            if not (self.source.file.resolve().parent / Path(path).expanduser()).exists():
                raise self.source.error(
                    f"there is no LoRA adapter '{path}'", (*at, "loras", name), advice="relative paths start from the scenario"
                )
        for key in ("url", "api_key_env", "api_key_header", "ca_file"):
            if runtime != "attach" and getattr(entry, key) is not None:
                raise self.source.error(f"only goes with `runtime: attach`, not with '{runtime}'", (*at, key))
        if entry.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.source.file.resolve().parent / Path(entry.ca_file).expanduser())
            except OSError as error:  # ssl.SSLError too
                reason = error.strerror or "no certificate in it"
                advice = "write the path of a PEM file, relative to the scenario"
                raise self.source.error(f"cannot be read as certificates ({reason})", (*at, "ca_file"), advice=advice) from None
