"""From the validated file to plain deployments and loads: sweeps multiplied out, checkpoints and options resolved.

Every check that needs an adapter is made here, so that a wrong engine, precision, option or path is an error with a line
number before anything starts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from enginebench.adapter import Adapter
from enginebench.checkpoints import RandomMoE, missing
from enginebench.errors import did_you_mean
from enginebench.nouns import JSON, Deployment, Load, Parallelism, canonical, fingerprint, plain
from enginebench.registry import Registry
from enginebench.scenario.complaint import complain
from enginebench.scenario.schema import Deployments, Loads, ScenarioFile
from enginebench.scenario.source import Location, Source, read


@dataclass(frozen=True)
class ParityCheck:
    """How the engines' greedy outputs are compared: number of prompts, their length and the length of the outputs, in tokens."""

    prompts: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Scenario:
    """What to compare: deployments, the loads of each, repeats. file and text are where it came from, verbatim."""

    name: str
    deployments: tuple[Deployment, ...]
    loads: tuple[tuple[Load, ...], ...]
    """For each deployment, what is sent to it, in order."""
    repeats: int = 1
    parity: ParityCheck | None = None
    title: str | None = None
    description: str | None = None
    file: Path = Path("scenario.yaml")
    text: str = ""


def load_scenario(file: Path, registry: Registry) -> Scenario:
    """Read, check and expand a scenario file. UserError with file, line and key for anything wrong in it."""
    return expand(read(file), registry)


def expand(source: Source, registry: Registry) -> Scenario:
    """As `load_scenario`, for a source at hand."""
    try:
        written = ScenarioFile.model_validate(source.data)
    except ValidationError as error:
        raise complain(error, source, ScenarioFile) from None
    expansion = _Expansion(source, registry, written)
    found = {fingerprint(canonical(d)): (d, loads) for i, entry in enumerate(written.deployments) for d, loads in expansion.of(entry, i)}
    if not any(loads for _, loads in found.values()):
        raise source.error("`only` leaves no deployment for any load", ("loads",))
    return Scenario(
        name=written.name,
        deployments=tuple(deployment for deployment, _ in found.values()),
        loads=tuple(loads for _, loads in found.values()),
        repeats=written.repeats,
        parity=ParityCheck(**written.parity.model_dump()) if written.parity else None,
        title=written.title,
        description=written.description,
        file=source.file,
        text=source.text,
    )


def _loads(entry: Loads) -> Iterator[Load]:
    axes = {name: value for name, value in entry if value is not None and name not in ("only", "requests", "warmup_requests")}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        for requests in entry.requests or [max(16, 4 * point["concurrency"])]:
            for warmup in entry.warmup_requests or [point["concurrency"]]:
                yield Load(**point, requests=requests, warmup_requests=warmup)


def _meant(group: Loads, chosen: Mapping[str, str | None]) -> bool:
    """Whether these loads are for a deployment with these values."""
    return all(chosen[key] in values for key, values in group.only.items())


@dataclass(frozen=True)
class _Expansion:
    source: Source
    registry: Registry
    written: ScenarioFile

    def of(self, entry: Deployments, number: int) -> Iterator[tuple[Deployment, tuple[Load, ...]]]:
        """Every deployment of entry number `number`, with what is sent to it."""
        at: Location = ("deployments", number)
        spread = itertools.product(entry.tp, entry.pp, entry.dp_replicas, entry.attention_dp, entry.ep)
        parallelisms = [Parallelism(*degrees) for degrees in spread]
        for (e, engine), (m, model), (p, precision), (r, runtime) in itertools.product(
            enumerate(entry.engine), enumerate(entry.model), enumerate(entry.precision), enumerate(entry.runtime)
        ):
            chosen = {"engine": engine, "model": model, "precision": precision, "runtime": runtime, "label": entry.label}
            loads = tuple(dict.fromkeys(load for group in self.written.loads if _meant(group, chosen) for load in _loads(group)))
            adapter = self._adapter(engine, loads, self._place(at, "engine", e))
            self._check_runtime(adapter, entry, runtime, at, self._place(at, "runtime", r))
            if adapter.precisions is not None and precision not in adapter.precisions:
                advice = did_you_mean(precision, adapter.precisions)
                raise self.source.error(f"{adapter.title} has no precision '{precision}'", self._place(at, "precision", p), advice=advice)
            checkpoint = self._checkpoint(adapter, model, precision, self._place(at, "model", m), attached=runtime == "attach")
            contexts = entry.max_context or [self._longest(loads)]
            streams = entry.max_concurrency or [max((load.concurrency for load in loads), default=1)]
            for parallelism, context, concurrency, options in itertools.product(
                parallelisms, contexts, streams, self._options(entry, adapter, at)
            ):
                yield Deployment(
                    engine=engine, model=model, precision=precision, checkpoint=checkpoint, runtime=runtime, parallelism=parallelism,
                    max_context=context, max_concurrency=concurrency, options=options, url=entry.url.rstrip("/") if entry.url else None,
                    api_key_env=entry.api_key_env, ready_timeout_s=entry.ready_timeout_s, label=entry.label,
                ), loads  # fmt: skip

    def _longest(self, loads: Sequence[Load]) -> int:
        """Tokens that the longest request of the loads or of the parity check needs."""
        parity = self.written.parity
        checked = parity.input_tokens + parity.output_tokens if parity else 0
        return max([load.input_tokens + load.output_tokens for load in loads] + [checked, 1])

    def _place(self, at: Location, key: str, index: int) -> Location:
        """Where value number `index` of a sweep stands: inside its list, or at the key when it is a single value."""
        return (*at, key, index) if (*at, key, index) in self.source.lines else (*at, key)

    def _adapter(self, engine: str, loads: Sequence[Load], at: Location) -> Adapter:
        if engine not in self.registry:
            raise self.source.error(f"there is no engine '{engine}'", at, advice=did_you_mean(engine, self.registry))
        adapter = self.registry[engine]
        for api in dict.fromkeys(load.api for load in loads):
            if api not in adapter.apis:
                raise self.source.error(f"{adapter.title} does not serve the {api} route", at, advice=f"it has: {', '.join(adapter.apis)}")
        return adapter

    def _check_runtime(self, adapter: Adapter, entry: Deployments, runtime: str, at: Location, here: Location) -> None:
        if runtime not in adapter.runtimes:
            advice = f"it has: {', '.join(adapter.runtimes)}"
            raise self.source.error(f"{adapter.title} has no runtime '{runtime}'", here, advice=advice)
        if runtime == "attach" and entry.url is None:
            raise self.source.error("`runtime: attach` needs the server's `url`", at, advice="e.g. url: http://127.0.0.1:8000")
        for key in ("url", "api_key_env"):
            if runtime != "attach" and getattr(entry, key) is not None:
                raise self.source.error(f"only goes with `runtime: attach`, not with '{runtime}'", (*at, key))

    def _checkpoint(self, adapter: Adapter, name: str, precision: str, at: Location, *, attached: bool) -> str:
        if name not in self.written.models:
            if attached or adapter.checkpoint_format == "none":
                return name
            raise self.source.error(f"there is no model '{name}' under `models`", at, advice=did_you_mean(name, self.written.models))
        model = self.written.models[name]
        if model.random_weights is not None:
            return RandomMoE(**model.random_weights.model_dump()).reference()
        reference, here = self._written_checkpoint(adapter, name, precision, at)
        reason = None if attached else missing(reference, precision, adapter.checkpoint_format, self.source.file.resolve().parent)
        if reason:
            raise self.source.error(reason, here)
        return reference

    def _written_checkpoint(self, adapter: Adapter, name: str, precision: str, at: Location) -> tuple[str, Location]:
        checkpoints = self.written.models[name].checkpoints or {}
        if precision not in checkpoints:
            raise self.source.error(
                f"model '{name}' has no checkpoint in precision '{precision}'", at, advice=did_you_mean(precision, checkpoints)
            )
        entry, here = checkpoints[precision], ("models", name, "checkpoints", precision)
        if isinstance(entry, str):
            return entry, here
        if adapter.name not in entry:
            raise self.source.error(
                f"there is no checkpoint for {adapter.name}", here, advice=f"there is one for: {', '.join(sorted(entry))}"
            )
        return entry[adapter.name], (*here, adapter.name)

    def _options(self, entry: Deployments, adapter: Adapter, at: Location) -> list[dict[str, JSON]]:
        """Every combination of the options' listed values, validated against the adapter's dataclass."""
        here = (*at, "options")
        listed = _list_options(adapter.options)
        axes: dict[str, list[JSON]] = {}
        for key, value in entry.options.items():
            if key not in listed:
                raise self.source.error(f"is not an option of {adapter.title}", (*here, key), advice=did_you_mean(key, listed))
            axes[key] = value if isinstance(value, list) and (not listed[key] or any(isinstance(v, list) for v in value)) else [value]
            if not axes[key]:
                raise self.source.error("is an empty list: the sweep would have no cells", (*here, key))
        return [self._validated(dict(zip(axes, point, strict=True)), adapter, here) for point in itertools.product(*axes.values())]

    def _validated(self, options: dict[str, JSON], adapter: Adapter, here: Location) -> dict[str, JSON]:
        try:
            checked: Any = TypeAdapter(adapter.options).validate_python(options)
        except ValidationError as error:
            raise complain(error, self.source, ScenarioFile, here) from None
        return {key: plain(getattr(checked, key)) for key in options}


def _list_options(options: type) -> dict[str, bool]:
    """Option name -> whether its own value is a list (then only a list of lists is a sweep)."""
    hints = get_type_hints(options)
    return {
        f.name: any(get_origin(t) in (list, tuple) for t in (hints[f.name], *get_args(hints[f.name]))) for f in dataclasses.fields(options)
    }
