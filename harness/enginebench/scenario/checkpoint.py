"""From a model's name and a precision to the checkpoint reference of one engine, or an error at its line."""

from __future__ import annotations

from dataclasses import dataclass, field

from enginebench.adapter import Adapter
from enginebench.checkpoints import RandomMoE, check
from enginebench.errors import UserError, did_you_mean
from enginebench.inputs.source import Location, Source
from enginebench.scenario.schema import RandomWeights, ScenarioFile


@dataclass
class Checkpoints:
    """The `models` of a scenario."""

    source: Source
    written: ScenarioFile
    _checked: set[tuple[str, str, str]] = field(default_factory=set)

    def reference(self, adapter: Adapter, name: str, precision: str, model_at: Location, precision_at: Location, *, attached: bool) -> str:
        """The checkpoint of `name` in `precision` for this engine. attached: the server has it already, nothing is checked."""
        models = self.written.models
        if name not in models:
            if attached or adapter.checkpoint_format == "none":
                return name
            raise self.source.error(f"there is no model '{name}' under `models`", model_at, advice=did_you_mean(name, models))
        random = models[name].random_weights
        if random is not None:
            reference, here = self._random(name, random), precision_at
        else:
            reference, here = self._listed(adapter, name, precision, model_at)
        if not attached:
            self._check(reference, precision, adapter, here)
        return reference

    def _check(self, reference: str, precision: str, adapter: Adapter, here: Location) -> None:
        question = (reference, precision, adapter.checkpoint_format)
        if question in self._checked:
            return
        try:
            check(*question, self.source.file.resolve().parent)
        except UserError as error:
            raise self.source.error(error.message, here, advice=error.advice) from None
        self._checked.add(question)

    def _random(self, name: str, weights: RandomWeights) -> str:
        try:
            return RandomMoE(**weights.model_dump()).reference()
        except UserError as error:
            at: Location = ("models", name, "random_weights")
            raise self.source.error(error.message, (*at, error.key) if error.key else at, advice=error.advice) from None

    def _listed(self, adapter: Adapter, name: str, precision: str, at: Location) -> tuple[str, Location]:
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
