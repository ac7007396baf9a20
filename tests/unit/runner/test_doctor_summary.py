"""The doctor begins with the machine in one line, and ends with what can run here and what to type next."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner
from enginebench.adapter import Install
from enginebench.cli import bench
from enginebench.engines.installed import Engine
from enginebench.machine import host, labels
from enginebench.machine.accelerators import Gpu
from enginebench.runner import doctor, doctor_summary
from enginebench.runner.preflight import Preflight

HERE = (Engine("llamacpp", requirements=("x",), installs=(Install("x", "1"),)), Engine("fake", installs=(Install("builtin", "1"),)))


def scenarios(patched: pytest.MonkeyPatch, **runnable: str) -> None:
    """Built-in scenarios of which a whole, a part or nothing can run."""
    found = {"whole": Preflight(4), "part": Preflight(4, skipped={"a": "x"}), "nothing": Preflight(2, skipped={"a": "x", "b": "x"})}
    patched.setattr(doctor_summary, "built_in_scenarios", lambda: sorted(runnable))
    patched.setattr(doctor_summary, "plan", lambda name: name)
    patched.setattr(doctor_summary, "preflight", lambda name: found[runnable[name]])


@pytest.mark.parametrize(
    ("gpus", "refusal", "end"),
    [
        ((), "no response", "no GPU · no Docker"),
        ((Gpu("NVIDIA H100 80GB HBM3"),) * 4, None, "4x NVIDIA H100 80GB HBM3 · Docker"),
    ],
)
def test_the_machine_in_one_line(gpus: tuple[Gpu, ...], refusal: str | None, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_summary, "gpus", lambda: gpus)
    monkeypatch.setattr(doctor_summary, "refusal", lambda: refusal)
    monkeypatch.setattr(host, "cpu_name", lambda: "AMD EPYC 9654 96-Core Processor")
    monkeypatch.setattr(host, "usable_cores", lambda: 96)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=755 * 2**30))
    assert doctor_summary.machine_line() == f"AMD EPYC 9654 96-Core, 96 cores, 755 GiB · {end}"


@pytest.mark.parametrize(
    ("runnable", "engines", "said"),
    [
        (
            {"quickstart": "whole", "cpu_all_engines": "part", "scout_4xh100": "nothing"}, HERE,
            ("quickstart; a part of cpu_all_engines", "next: bench run quickstart"),
        ),
        ({"quickstart": "whole", "scout_4xh100": "whole"}, HERE, ("quickstart, scout_4xh100", "next: bench run scout_4xh100")),
        ({"quickstart": "nothing"}, HERE[1:], ("no built-in scenario", "next: bench engines install llamacpp")),
        ({"quickstart": "nothing"}, HERE, ("no built-in scenario", "next: bench plan quickstart")),
    ],
)  # fmt: skip
def test_what_can_run_and_what_to_type(
    runnable: dict[str, str], engines: tuple[Engine, ...], said: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios(monkeypatch, **runnable)
    assert doctor_summary.can_run(engines) == said


def test_the_first_and_the_last_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path))
    scenarios(monkeypatch, quickstart="whole")
    monkeypatch.setattr(doctor_summary, "machine_line", lambda: "EPYC, 96 cores, 755 GiB · no GPU · Docker")
    monkeypatch.setattr(doctor, "diagnose", lambda _: [doctor.Diagnosis("Python", "ok", "CPython 3.11")])
    monkeypatch.setattr(labels, "labels_text", lambda: "arch=x86_64,cores=96")
    assert CliRunner().invoke(bench, ["doctor"]).stdout == (
        "ok    machine      EPYC, 96 cores, 755 GiB · no GPU · Docker\n"
        "ok    Python       CPython 3.11\n"
        "ok    labels       arch=x86_64,cores=96\n"
        "ok    can run      quickstart\n"
        "                   next: bench run quickstart\n"
    )
