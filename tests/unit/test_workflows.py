"""GitHub's workflows, which cannot run here: what they run, read and hand on is there. `.ci/run` checks them against GitHub's schema."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from enginebench.machine.folders import checkout

ROOT = checkout() or Path()
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def read(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def steps(name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Id of the job, the job, the step."""
    for job_id, job in read(name)["jobs"].items():
        yield from ((job_id, job, step) for step in job["steps"])


def expressions(part: object) -> list[str]:
    """What stands in ${{ }}; a condition may stand without it."""
    if isinstance(part, dict):
        bare = [str(part["if"])] if "if" in part else []
        return bare + [each for value in part.values() for each in expressions(value)]
    if isinstance(part, list):
        return [each for value in part for each in expressions(value)]
    return EXPRESSION.findall(str(part))


@pytest.mark.parametrize("name", FILES)
def test_what_the_steps_run_is_there_and_is_shell(name: str) -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    scripts = [step["run"] for _, _, step in steps(name) if "run" in step]
    for script in scripts:
        subprocess.run(["bash", "-n"], input=EXPRESSION.sub("x", script), text=True, check=True)
        assert not EXPRESSION.search(script), "a value in a script is code: hand it over in env"
        for path, interpreted in ((path, bool(python)) for python, path in re.findall(r"(python )?(\.ci/[\w.]+)", script)):
            assert (ROOT / path).is_file(), path
            assert interpreted or os.access(ROOT / path, os.X_OK), path
        assert set(re.findall(r"\bmake ([\w./-]+)", script)) <= targets
    assert scripts


@pytest.mark.parametrize("name", FILES)
def test_what_expressions_name_is_declared(name: str) -> None:
    workflow = read(name)
    inputs = set(((workflow[True].get("workflow_dispatch") or {}).get("inputs") or {}).keys())  # `on` is true in YAML 1.1
    for job_id, job in workflow["jobs"].items():
        needs = job.get("needs", [])
        known = {
            "inputs": inputs,
            "needs": set([needs] if isinstance(needs, str) else needs),
            "steps": {step["id"] for step in job["steps"] if "id" in step},
            "matrix": set(job.get("strategy", {}).get("matrix", {})),
            "env": {*workflow.get("env", {}), *job.get("env", {})},
        }
        assert known["needs"] <= set(workflow["jobs"])
        for text in expressions([workflow.get("env"), job]):
            for context, key in re.findall(r"\b(inputs|needs|steps|matrix|env)\.([\w-]+)", text):
                assert key in known[context], f"{name}: {job_id}: {context}.{key}"


def test_the_nightly_job_hands_on_what_its_script_writes() -> None:
    """The variables of the script, the folder that is uploaded, and the site of the job that publishes it."""
    script, workflow = (ROOT / ".ci" / "nightly").read_text(), read("nightly.yaml")
    documented = set(re.findall(r"^#   ([A-Z_]+) ", script, re.MULTILINE))
    assert documented - {"OUT"} <= set(workflow["env"])
    (out,) = re.findall(r"^out=\$\{OUT:-(\w+)\}", script, re.MULTILINE)
    uses = {step["uses"].partition("@")[0]: (job_id, step) for job_id, _, step in steps("nightly.yaml") if "uses" in step}
    assert uses["actions/upload-artifact"][1]["with"]["path"] == out
    job_id, site = uses["actions/upload-pages-artifact"]
    assert site["with"]["path"] == "${{ env.SITE }}"
    publish = workflow["jobs"][uses["actions/deploy-pages"][0]]
    assert job_id in publish["needs"]
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert "vars.ENGINEBENCH_PAGES == 'true'" in publish["if"]
    assert "vars.ENGINEBENCH_PAGES == 'true'" in site["if"], "else there is nothing to deploy"
