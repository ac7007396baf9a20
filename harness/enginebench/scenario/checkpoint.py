"""From a model's name and a precision to the checkpoint reference of one engine, or an error at its line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enginebench.adapter import Adapter
from enginebench.checkpoints import RandomMoE, check, hub, local_path
from enginebench.checkpoints.stored_precision import stored_precisions
from enginebench.domain import Deployment
from enginebench.domain.precisions import TORCH_DTYPES, UNSTATED
from enginebench.errors import UserError, did_you_mean
from enginebench.inputs.source import Location, Source
from enginebench.scenario.schema import Model, RandomWeights, ScenarioFile


@dataclass
class Checkpoints:
    """The `models` of a scenario."""

    source: Source
    written: ScenarioFile
    _checked: set[tuple[str, str, str]] = field(default_factory=set)

    def precision(self, adapter: Adapter, name: str, model_at: Location, at: Location) -> str:
        """The precision of a deployment that does not write one: the only one there is, or what the checkpoint's header says."""
        if adapter.precisions is not None and len(adapter.precisions) == 1:
            return min(adapter.precisions)
        model, place = self._model(name, model_at), (*at, "precision")
        if model.checkpoint is not None:
            reference, here = self._for_engine(adapter, model.checkpoint, ("models", name, "checkpoint"))
            if (path := self._path(reference)) is None and not reference.startswith("random:"):
                self._check(reference, None, adapter, here)
            stored = self._stored(path, here) if path is not None else ()
            if not stored:
                missing = "its header does not say it" if path is not None else "it is not on this machine yet"
                raise self.source.error(
                    f"the precision of '{reference}' is unknown: {missing}", place, advice="write it, e.g. precision: f16"
                )
            return next((each for each in stored if adapter.precisions is None or each in adapter.precisions), stored[0])
        known = list(model.checkpoints or ("f32", "f16", "bf16"))
        if len(known) > 1:
            raise self.source.error(
                f"model '{name}' has several precisions: {', '.join(known)}", place, advice=f"write precision: {known[0]}"
            )
        return known[0]

    def reference(
        self, adapter: Adapter, name: str, precision: str, model_at: Location, precision_at: Location, *, attached: bool, converted: bool
    ) -> str:
        """The checkpoint of `name` in `precision` for this engine.

        attached: the server has it already, nothing is checked. converted: an option has the engine convert what is stored.
        """
        if name not in self.written.models and (attached or adapter.checkpoint_format == "none"):
            return name
        model = self._model(name, model_at)
        if model.random_weights is not None:
            reference, here = self._random(name, model.random_weights), precision_at
        elif model.checkpoint is not None:
            reference, here = self._for_engine(adapter, model.checkpoint, ("models", name, "checkpoint"))
        else:
            known, here = model.checkpoints or {}, ("models", name, "checkpoints", precision)
            if precision not in known and attached and precision == UNSTATED:
                return name
            if precision not in known:
                message = f"model '{name}' has no checkpoint in precision '{precision}'"
                raise self.source.error(message, model_at, advice=did_you_mean(precision, known))
            reference, here = self._for_engine(adapter, known[precision], here)
        if not attached:
            self._check(reference, precision, adapter, here)
            if model.random_weights is None and not converted:
                self._check_stored(reference, precision, adapter, here if model.checkpoint is None else precision_at)
        return reference

    def draft(self, adapter: Adapter, name: str, precision: str, at: Location) -> tuple[str, str]:
        """(reference, precision) of what proposes tokens: a key of `models`, else a checkpoint. A model with several precisions has that of
        the deployment."""
        model = self.written.models.get(name)
        if model is None:
            self._check(name, precision, adapter, at)
            path = self._path(name)
            stored = self._stored(path, at) if path is not None and adapter.checkpoint_format != "none" else ()
            return name, stored[0] if stored else precision
        known = model.checkpoints or {}
        if model.checkpoint is not None:
            precision = self.precision(adapter, name, at, at)
        elif known and precision not in known:
            if len(known) > 1:
                advice = f"write the checkpoint itself as draft, or add one in {precision}"
                raise self.source.error(
                    f"the draft '{name}' has no checkpoint in {precision}, only in {', '.join(known)}", at, advice=advice
                )
            precision = next(iter(known))
        return self.reference(adapter, name, precision, at, at, attached=False, converted=False), precision

    def _model(self, name: str, at: Location) -> Model:
        models = self.written.models
        if name not in models:
            raise self.source.error(f"there is no model '{name}' under `models`", at, advice=did_you_mean(name, models))
        return models[name]

    def _for_engine(self, adapter: Adapter, entry: str | dict[str, str], at: Location) -> tuple[str, Location]:
        if isinstance(entry, str):
            return entry, at
        if adapter.name not in entry:
            advice = f"there is one for: {', '.join(sorted(entry))}"
            raise self.source.error(f"there is no checkpoint for {adapter.name}", at, advice=advice)
        return entry[adapter.name], (*at, adapter.name)

    def _check(self, reference: str, precision: str | None, adapter: Adapter, here: Location) -> None:
        question = (reference, precision or "", adapter.checkpoint_format)
        if question in self._checked:
            return
        try:
            check(*question, self._base)
        except UserError as error:
            raise self.source.error(error.message, here, advice=error.advice) from None
        self._checked.add(question)

    def _check_stored(self, reference: str, precision: str, adapter: Adapter, here: Location) -> None:
        """Refuse a precision that the checkpoint does not have and that the engine does not make of it."""
        path = self._path(reference) if adapter.checkpoint_format != "none" else None
        stored = self._stored(path, here) if path is not None else ()
        if problem := mismatch(adapter, reference, stored, precision):
            raise self.source.error(problem.message, here, advice=problem.advice)

    def _stored(self, path: Path, here: Location) -> tuple[str, ...]:
        try:
            return stored_precisions(path)
        except (UserError, OSError) as error:
            message = error.message if isinstance(error, UserError) else f"cannot be read: {error.strerror}"
            raise self.source.error(f"'{path}': {message}", here, advice=getattr(error, "advice", None)) from None

    def _path(self, reference: str) -> Path | None:
        """Where its header can be read: a local file or folder, or the folder of a hub id in the hub's cache."""
        if (path := local_path(reference, self._base)) is not None:
            return path
        try:
            return hub.cached_folder(reference, "config.json", os.environ) if hub.is_id(reference) else None
        except OSError:
            return None

    @property
    def _base(self) -> Path:
        return self.source.file.resolve().parent

    def _random(self, name: str, weights: RandomWeights) -> str:
        try:
            return RandomMoE(**weights.model_dump()).reference()
        except UserError as error:
            at: Location = ("models", name, "random_weights")
            raise self.source.error(error.message, (*at, error.key) if error.key else at, advice=error.advice) from None


CONVERTING = frozenset({"quantization", "dequantize"})
"""Options by which engines make another precision of what is stored; their adapters check them."""


def mismatch(adapter: Adapter, reference: str, stored: Sequence[str], precision: str) -> UserError | None:
    """Why a checkpoint stored like this is not what the engine would be said to run; None if it is, or if its header does not say."""
    cast = adapter.casts and adapter.checkpoint_format == "safetensors" and {precision, *stored} <= TORCH_DTYPES.keys()
    if not stored or precision in stored or cast:
        return None
    usable = [each for each in stored if adapter.precisions is None or each in adapter.precisions]
    advice = f"write {usable[0]} in place of {precision}" if usable else f"{adapter.title} cannot load {stored[0]}"
    return UserError(f"'{reference}' is stored in {stored[0]}, not in {precision}", advice=advice)


def check_fetched(adapter: Adapter, deployment: Deployment, base: Path) -> None:
    """As planning does for a checkpoint that is here, for one that was fetched since. Raises UserError."""
    path = local_path(deployment.checkpoint, base) if deployment.checkpoint.startswith(("package:", hub.SCHEME)) else None
    known = path is not None and adapter.checkpoint_format != "none" and CONVERTING.isdisjoint(deployment.options)
    stored = stored_precisions(path) if known and path is not None else ()
    if problem := mismatch(adapter, deployment.checkpoint, stored, deployment.precision):
        raise problem
