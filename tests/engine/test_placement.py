"""`--on` on the command line: what is refused in one sentence, what nodes say, and that a plain run imports nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from .bench import Bench


def test_what_no_node_fits_is_one_sentence(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 5}, node: {rack: 2}")
    refused = bench("run", scenario, "--on", "local")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "error: no node of local fits any deployment: this machine: it has no label rack\n  see the nodes with: bench doctor --on local\n"
    )
    assert not (bench.folder / "results").exists()
    here = bench("run", scenario)
    assert here.returncode == 2
    assert "a node with rack 2" in here.stderr
    shown = bench("plan", scenario, "--on", "local")
    assert "0 of 1 unit can be placed:" in shown.stdout
    assert "cannot be placed: this machine: it has no label rack" in shown.stdout


def test_bad_words_after_on_are_one_sentence_each(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 5}")
    assert "error: --on lokal: there is no such placement\n" in bench("run", scenario, "--on", "lokal").stderr
    assert "unknown setting of --on local" in bench("run", scenario, "--on", "local", "--place", "color=red").stderr
    assert "expected KEY=VALUE" in bench("run", scenario, "--on", "local", "--place", "color").stderr
    assert "no cluster is named" in bench("run", scenario, "--partition", "gpu").stderr
    assert "state a number: --repeats 5" in bench("run", scenario, "--on", "local", "--repeats", "auto").stderr
    assert "submits no file" in bench("run", scenario, "--on", "local", "--dry-run").stderr
    assert "what --on would submit" in bench("run", scenario, "--dry-run").stderr


def test_doctor_and_plan_show_nodes_as_data(bench: Bench) -> None:
    (node,) = json.loads(bench("doctor", "--on", "local", "--json").stdout)
    assert node["name"] == "this machine"
    assert node["labels"]["cores"] == str(len(os.sched_getaffinity(0)))
    assert "fake" in node["engines"]
    told = {each["topic"]: each["text"] for each in json.loads(bench("doctor", "--json").stdout)}
    assert f"cores={node['labels']['cores']}" in told["labels"].split(",")
    placed = json.loads(bench("plan", bench.scenario("options: {ttft_ms: 5}"), "--on", "local", "--json").stdout)
    assert placed["placing"] == [{"unit": "fake, repeat 1", "cells": 2, "nodes": ["this machine"], "why_not": ""}]


def test_a_plain_run_imports_nothing_of_it(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 5, tick_ms: 2}")
    code = (
        f"import sys\nfrom enginebench.cli import main\ntry:\n    main(['run', {scenario!r}])\nfinally:\n    print(*sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=bench.folder, env=bench.env, capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert "enginebench.runner.session" in modules
    assert {name for name in modules if "placement" in name} <= {"enginebench.cli.placement", "enginebench.physics.placement"}
    assert not {"ray", "kubernetes", "grpc"} & modules
