"""The `quality` of a scenario: its keys, the checks that need the rest of the file, and the checks of the domain that they become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from enginebench.domain.quality import ALICE, HUB, DivergenceCheck, PerplexityCheck, QualityCheck, TaskCheck
from enginebench.errors import did_you_mean
from enginebench.inputs.fields import Few, Strict
from enginebench.inputs.source import Source

MOST_INCREASE = 10.0
LEAST_WINDOWS = 2


def _share(value: Any) -> Any:
    if value is None:
        return None
    text = str(value).strip()
    try:
        found = float(text.removesuffix("%")) * (0.01 if text.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if isinstance(value, bool) or not 0 <= found <= MOST_INCREASE:
        message = "{value} is not a share from 0 to {most}; write e.g. 2% or 0.02"
        raise PydanticCustomError("share", message, {"value": repr(value), "most": f"{MOST_INCREASE:.0%}"})
    return found


def _share_schema(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string"}, *(kind for kind in schema["anyOf"] if kind.get("type") != "null")]


class Perplexity(Strict):
    """Perplexity of a text, through each engine's own log-probabilities. The defaults are the rule of llama.cpp's own tool."""

    text: Annotated[str, Field(min_length=1)] = Field(
        ALICE,
        description="`alice`, the text that ships with enginebench, or a file next to the scenario: UTF-8 text, or .parquet with a column "
        "`text`, or such a file of a data set on the hub: `hf:ORG/NAME/FILE`.",
    )
    windows: Annotated[int, Field(ge=1, le=100_000, strict=True)] = Field(
        16, description="Windows from the beginning of the text; each is an observation of the interval."
    )
    window: Annotated[int, Field(ge=4, le=1_000_000, strict=True)] = Field(512, description="Tokens of a window, scored by itself.")
    stride: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = Field(
        None, description="Tokens from the start of a window to the start of the next; default: a whole window."
    )
    scored: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = Field(
        None, description="The last tokens of each window that are scored; default: half of them, less one."
    )
    max_increase: Annotated[float, BeforeValidator(_share)] | None = Field(
        None,
        examples=["2%"],
        json_schema_extra=_share_schema,
        description="A deployment whose perplexity is above the reference's by more than this, "
        "with its whole 95 % interval, is not ranked.",
    )


class Divergence(Strict):
    """How far predictions are from those of the reference deployment."""

    top: Annotated[int, Field(ge=1, le=20, strict=True)] = Field(
        10, description="Most probable tokens that are compared in each place; vLLM returns at most 20."
    )
    places: Annotated[int, Field(ge=1, le=10_000, strict=True)] = Field(16, description="Places of each window of the text.")
    prompts: Annotated[int, Field(ge=0, le=1_000, strict=True)] = Field(
        4, description="Beginnings of windows that are continued greedily; 0: none."
    )
    output_tokens: Few = Field(32, description="Tokens of each continuation.")


class Task(Strict):
    """A task of lm-evaluation-harness (`bench engines install lm-eval`)."""

    name: Annotated[str, Field(min_length=1)] = Field(..., description="The task's name.")
    limit: Few | None = Field(None, description="At most so many documents; default: all.")
    api: Literal["completions", "chat"] = Field("completions", description="Route; chat applies the server's chat template.")
    folder: str | None = Field(
        None, description="Folder next to the scenario with the task's YAML file and data; default: a task that comes with it."
    )


def _named(value: Any) -> Any:
    return [{"name": each} if isinstance(each, str) else each for each in ([value] if isinstance(value, str | dict) else value)]


class Quality(Strict):
    """What is measured of each deployment's quality, once, after its loads, in the same server."""

    perplexity: Perplexity = Field(default_factory=Perplexity, description="Perplexity of a text; always measured.")
    reference: str | None = Field(
        None,
        description="Label of the deployment that the others of its model are compared with; default: that with the lowest perplexity.",
    )
    divergence: Divergence | None = Field(None, description="Compare predictions with the reference's, token by token.")
    tasks: Annotated[list[Task], BeforeValidator(_named)] = Field(default_factory=list, description="Tasks: names, or mappings.")
    under_load: bool = Field(default=False, description="Measure the perplexity again while other requests are answered.")


def quality_of(written: Quality | None, source: Source, labels: Sequence[str]) -> QualityCheck | None:
    """The checks of a scenario; None if it has none. UserError at its line for what contradicts itself or the rest of the file."""
    if written is None:
        return None
    its = written.perplexity
    if its.scored is not None and its.scored >= its.window:
        message = f"{its.scored} tokens cannot be scored in a window of {its.window}: the first one has nothing before it"
        raise source.error(message, ("quality", "perplexity", "scored"), advice=f"write at most {its.window - 1}")
    if its.stride is not None and its.stride > its.window:
        message = f"a stride of {its.stride} leaves out tokens between windows of {its.window}"
        raise source.error(message, ("quality", "perplexity", "stride"), advice=f"write at most {its.window}")
    if its.max_increase is not None and its.windows < LEAST_WINDOWS:
        message = f"{its.windows} window has no interval, by which `max_increase` decides"
        raise source.error(message, ("quality", "perplexity", "windows"), advice="write 8 or more, or leave it out for 16")
    if its.text.startswith(HUB) and its.text.count("/") < 2:
        raise source.error(f"'{its.text}' names no file", ("quality", "perplexity", "text"), advice="write hf:ORG/NAME/FILE, of a data set")
    if its.text != ALICE and not its.text.startswith(HUB) and not (source.file.resolve().parent / Path(its.text).expanduser()).is_file():
        advice = f"write the path of a file, from the folder of the scenario, or {ALICE}"
        raise source.error(f"there is no file '{its.text}'", ("quality", "perplexity", "text"), advice=advice)
    if written.reference is not None and written.reference not in labels:
        advice = did_you_mean(written.reference, labels) if labels else "give one a `label`"
        raise source.error(f"no deployment has the label '{written.reference}'", ("quality", "reference"), advice=advice)
    perplexity = PerplexityCheck(**its.model_dump())
    divergence = DivergenceCheck(**written.divergence.model_dump()) if written.divergence is not None else None
    tasks = tuple(TaskCheck(**task.model_dump()) for task in written.tasks)
    return QualityCheck(perplexity, written.reference, divergence, tasks, written.under_load)
