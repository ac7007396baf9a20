"""Why an engine cannot do what a deployment asks for: reasons as exceptions, and checks that engines share. Does not know engines."""

from __future__ import annotations

from collections.abc import Mapping

from enginebench.domain.deployment import Deployment
from enginebench.domain.precisions import TORCH_DTYPES


class Unsupported(Exception):  # noqa: N818  # a verdict, not a malfunction
    """The engine cannot express this deployment, and the text says why. The cell is skipped with that reason."""


class NotInstalled(Unsupported):
    """The engine, or what the scenario needs of it, is not installed; `bench run` refuses before it starts.

    install: the command that installs it; None: `bench engines install` with the engine's name.
    """

    def __init__(self, reason: str, install: str | None = None) -> None:
        super().__init__(reason)
        self.install = install


def holding(*texts: tuple[object, str]) -> tuple[str, ...]:
    """The texts whose condition is true, in order."""
    return tuple(text for condition, text in texts if condition)


def refuse(*reasons: tuple[object, str]) -> None:
    """Raise Unsupported with the first reason whose condition is true."""
    for reason in holding(*reasons):
        raise Unsupported(reason)


def check_quantization(title: str, deployment: Deployment, quantization: str | None, precisions: Mapping[str, str]) -> None:
    """Refuse a quantization that does not make the deployment's precision; `precisions` maps the engine's names to precisions."""
    precision = deployment.precision
    means = precisions.get(quantization or "", precision)
    refuse(
        (precision not in {*TORCH_DTYPES, *precisions.values(), "int4"}, f"{title} has no precision '{precision}'"),
        (quantization and precision in TORCH_DTYPES, f"{quantization} quantizes the {precision} weights: name the precision they get"),
        (means != precision, f"{quantization} is {means}, not {precision}"),
    )
