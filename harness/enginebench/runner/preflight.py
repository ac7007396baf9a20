"""Checks that can fail before anything is launched: engines, images, secrets and data sets of a plan."""

from __future__ import annotations

from enginebench.adapter import NotInstalled, Unsupported
from enginebench.domain import Deployment
from enginebench.engines.installed import installs_of
from enginebench.errors import UserError
from enginebench.runner.http_engine import api_key
from enginebench.scenario.plan import Plan
from enginebench.workload.datasets import is_data_set, read_records


def check_launchable(plan: Plan) -> None:
    """UserError when an engine is not installed or has no image, or the environment variable with an API key is not set.

    A deployment that its engine does not support is no error: its cells are skipped with the reason.
    """
    for deployment, cells in plan.launches():
        if any(cell.id not in plan.skipped for cell in cells):
            _check(deployment, plan)


def _check(deployment: Deployment, plan: Plan) -> None:
    if deployment.runtime == "attach":
        api_key(deployment)
        return
    adapter = plan.registry[deployment.engine]
    if deployment.runtime == "docker":
        from enginebench.runner.containers import check_container  # needs the table of images

        check_container(adapter, deployment)  # the image itself is fetched when its turn comes
        return
    try:
        adapter.choose(deployment, installs_of(adapter))
    except NotInstalled as reason:
        raise UserError(str(reason), advice=f"next: bench engines install {adapter.name}") from None
    except Unsupported:
        return


def check_prompts(plan: Plan) -> None:
    """Read every data set. UserError for one that cannot be read; planning does not fetch from the hub."""
    file = plan.scenario.file
    for prompts in dict.fromkeys(cell.load.prompts for cell in plan.cells if cell.id not in plan.skipped):
        if is_data_set(prompts):
            try:
                read_records(prompts, file.resolve().parent)
            except UserError as error:
                raise UserError(error.message, file=error.file or file, line=error.line, key=error.key, advice=error.advice) from None
