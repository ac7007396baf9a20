"""One entry of `loads` as it may be written: a pydantic model made from the declared fields of all kinds of load.

`rules` checks which keys go together, `defaults` fills in what is not written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from enginebench.domain import Length, load_fields
from enginebench.domain.load_field import LoadField
from enginebench.errors import UserError
from enginebench.inputs.fields import Expression, ListOf, Rate, Strict, Tokens, sweep_field, sweep_or
from enginebench.workload.catalogue import named


class Find(Strict):
    """Search for the highest level of a load at which `slo.share` of the requests still meet the SLO.

    It starts at `from`, doubles while the SLO is met (in larger steps over a wide range), then halves the gap (geometrically). It measures
    at most 10 levels; every probe is an ordinary stored cell.
    """

    goal: Literal["max_goodput"] = Field("max_goodput", description="max_goodput: the most requests/s within the SLO.")
    over: Literal["rate", "concurrency"] = Field(description="What is raised: `rate` in requests/s, or `concurrency` in streams.")
    start: Rate = Field(1.0, alias="from", description="Lowest level, where the search begins.")
    to: Rate = Field(256.0, description="Highest level.")
    precision: Annotated[float, Field(ge=0.01, le=1, strict=True)] = Field(
        0.1, description="The search ends when the level that fails is at most this much above the one that passes."
    )


class LoadEntry(Strict):
    """One entry of `loads`: every combination of its listed values is sent to every deployment, or to those that `only` names."""

    only: dict[Literal["engine", "model", "precision", "runtime", "label"], Annotated[list[str], ListOf]] = Field(
        default_factory=dict,
        examples=["{model: scout}"],
        description="Send these loads only to the deployments with these values, e.g. `only: {model: scout}`.",
    )
    find: Find | None = Field(
        None,
        description="Search for the heaviest of these loads that meets the `slo`, instead of a sweep over its level.",
        examples=["{goal: max_goodput, over: rate, from: 1, to: 64}"],
    )

    @model_validator(mode="before")
    @classmethod
    def _of_workload(cls, written: Any) -> Any:
        """The keys of a named workload, below those that are written."""
        name = written.get("workload") if isinstance(written, dict) else None
        if not isinstance(name, str):
            return written
        try:
            found = named(name)
        except UserError as error:
            raise PydanticCustomError("workload", "{problem}", {"problem": f"{error.message}: {error.advice}"}) from None
        replaced = {key for key, its in load_fields().items() if its.replaced_by in written}
        kept = {key: value for key, value in found.load.items() if key not in replaced}
        if {"input_tokens", "output_tokens"} & written.keys():
            kept.pop("lengths", None)
        return {**kept, **written, "workload": found.id}

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The values of each field of the load that is written or has a fixed default."""
        return {name: values for name in load_fields() if (values := getattr(self, name)) is not None}

    @property
    def written(self) -> set[str]:
        """The fields of the load that are written, with the level that `find` sets."""
        return (self.model_fields_set | ({self.find.over} if self.find else set())) & load_fields().keys()


def _entry(declared: LoadField) -> tuple[Any, Any]:
    """Annotation and pydantic field of one key: a value or a list of values to sweep."""
    one: Any = _value(declared)
    axis: Any = Annotated[list[one], ListOf]
    if declared.inferred or declared.default is None:
        return axis | None, sweep_or(declared.doc)
    return axis, sweep_field(declared.default, declared.doc)


def _value(declared: LoadField) -> Any:
    kind = declared.type
    if kind == Length:
        return Tokens
    kind = next((part for part in get_args(kind) if part is not type(None)), kind) if type(None) in get_args(kind) else kind
    if kind in (int, float):
        bounds = {"gt": declared.above, "ge": declared.least, "le": declared.most}
        limits: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
        return Annotated[kind, Field(strict=True, **limits, **_examples(declared))]
    if kind is str:
        checked = Annotated[Expression, Field(**_examples(declared))]
        return Annotated[checked, AfterValidator(_notation(declared))] if declared.check else checked
    return kind


def _examples(declared: LoadField) -> dict[str, Any]:
    return {"examples": list(declared.examples)} if declared.examples else {}


def _notation(declared: LoadField) -> Any:
    def check(value: str) -> str:
        if problem := declared.problem(value):
            raise PydanticCustomError(declared.name, "{problem}", {"problem": problem})
        return value

    return check


if TYPE_CHECKING:
    Loads: TypeAlias = LoadEntry
else:
    _ENTRIES = {name: _entry(declared) for name, declared in load_fields().items()}
    Loads = create_model("Loads", __base__=LoadEntry, __doc__=LoadEntry.__doc__, __module__=__name__, **_ENTRIES)
