"""Capsules: the same run makes the same bytes, every change is named, and no secret gets in."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import enginebench
import pytest
from enginebench.checkpoints.content import content_of
from enginebench.cli import main
from enginebench.errors import UserError
from enginebench.machine.folders import checkout
from enginebench.machine.host import facts
from enginebench.records.capsule import Capsule, write_capsule
from enginebench.records.run_folder import Run

KEPT = (checkout() or Path()) / "tests" / "kept" / "schema-2"
SECRET = 'Tr0ub4dor&3/plus"quote'
TOKEN = "hf_" + "AbCdEfGhIj" * 4


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run of four cells, two of them measured, with engine logs, as today's version stores it."""
    folder = Run(Path(shutil.copytree(KEPT, tmp_path / "run")))
    for cell in list(folder.cells()):
        folder.add_cell(cell, folder.samples(cell.id))
    for launch in folder.launches().values():
        folder.add_launch(launch)
    folder.update(folder.record)
    return folder.path


@pytest.fixture
def packed(run: Path, tmp_path: Path) -> Path:
    return enginebench.pack(run, tmp_path / "run.ebz").path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))


def changed(capsule: Path, target: Path, changes: dict[str, Callable[[bytes], bytes]], *, honest: bool) -> Path:
    """The capsule with some files changed. honest: with a manifest that fits, as somebody would make it who wants to deceive."""
    folder = target.parent / f"{target.stem}-files"
    opened = Capsule(capsule)
    assert not opened.unpack(folder)
    files: dict[str, Path | bytes] = {}
    for name in opened.manifest.files:
        content = (folder / name).read_bytes()
        files[name] = changes[name](content) if name in changes else content
    written = write_capsule(target, opened.manifest.enginebench, opened.manifest.about, files)
    if not honest:
        text = json.dumps(
            {**json.loads(json.dumps(written, default=vars)), "files": {n: vars(e) for n, e in opened.manifest.files.items()}}
        )
        _with_manifest(target, text.encode())
    return target


def _with_manifest(target: Path, manifest: bytes) -> None:
    import zipfile

    with zipfile.ZipFile(target) as before:
        members = [(member, before.read(member)) for member in before.infolist()]
    with zipfile.ZipFile(target, "w") as out:
        for member, content in members:
            out.writestr(member.filename, manifest if member.filename == "manifest.json" else content)


def test_the_same_run_makes_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = enginebench.pack(run, tmp_path / "a.ebz")
    other = Path(shutil.copytree(run, tmp_path / "elsewhere" / "renamed"))
    for file in other.rglob("*"):
        os.utime(file, (1, 1))
        file.chmod(0o700)
    (other / "report.html").write_text("derived, so no part of it")
    second = enginebench.pack(other, tmp_path / "b.ebz")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_what_is_in_it(packed: Path) -> None:
    names = set(Capsule(packed).manifest.files)
    assert {"run/run.json", "run/scenario.yaml", "figures.json", "inputs.json", "environment.json"} <= names
    for kind, count in {"run/cells/": 4, "run/samples/": 2, "run/logs/": 2, "run/launches/": 2, "locks/": 1}.items():
        assert sum(name.startswith(kind) for name in names) >= count, kind


def test_a_packed_run_holds(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = enginebench.verify(packed)
    assert found.holds
    assert found.figures > 200
    assert code_of("verify", str(packed)) == 0
    assert "all the same" in capsys.readouterr().out


@pytest.mark.parametrize("published", ["2026-11-30-cpu_all_engines"])
def test_a_published_run_holds(published: str, tmp_path: Path) -> None:
    found = enginebench.verify(enginebench.pack((checkout() or Path()) / "results" / "published" / published, tmp_path / "p.ebz").path)
    assert found.holds
    assert found.figures > 2000


KINDS = (
    "run/run.json",
    "run/scenario.yaml",
    "run/launches/",
    "run/cells/",
    "run/samples/",
    "run/logs/",
    "figures.json",
    "inputs.json",
    "locks/",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_is_named(kind: str, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = next(name for name in Capsule(packed).manifest.files if name.startswith(kind))
    flip = lambda content: content[:9] + bytes([content[9] ^ 1]) + content[10:]  # noqa: E731
    other = changed(packed, tmp_path / "other.ebz", {name: flip}, honest=False)
    found = enginebench.verify(other)
    assert name in {each.where for each in found.discrepancies if each.kind == "file"}
    assert code_of("verify", str(other)) == 1
    assert name in capsys.readouterr().out


def test_a_changed_figure_is_named(packed: Path, tmp_path: Path) -> None:
    def faster(content: bytes) -> bytes:
        data = json.loads(content)
        cell = next(name for name, figures in data["numbers"].items() if name.startswith("cell") and figures.get("ttft_p50"))
        data["numbers"][cell]["ttft_p50"] /= 2
        return json.dumps(data).encode()

    (found,) = enginebench.verify(changed(packed, tmp_path / "x.ebz", {"figures.json": faster}, honest=True)).discrepancies
    assert found.kind == "figure"
    assert found.where.endswith(": ttft_p50")
    assert "computed again" in found.why


def test_samples_that_were_made_faster_change_figures(run: Path, packed: Path, tmp_path: Path) -> None:
    """Whoever changes samples with every hash around them still has to change each figure."""
    folder = Run(run)
    cell = next(cell for cell in folder.cells() if cell.samples_sha256)
    samples = folder.samples(cell.id)
    assert samples is not None
    first = samples.edge(last=False)
    quicker = samples.event_ns.copy()
    quicker[samples.offsets[:-1]] -= (first - samples.sent_ns) // 2
    folder.add_cell(replace(cell, samples_sha256=None), replace(samples, event_ns=quicker))
    forged = enginebench.pack(run, tmp_path / "forged.ebz").path
    old = dict(_files(packed))["figures.json"]
    found = enginebench.verify(changed(forged, tmp_path / "x.ebz", {"figures.json": lambda _: old}, honest=True))
    assert {each.kind for each in found.discrepancies} == {"figure"}
    assert f"cell {cell.id}: ttft_p50" in {each.where for each in found.discrepancies}


def _files(capsule: Path) -> list[tuple[str, bytes]]:
    import zipfile

    with zipfile.ZipFile(capsule) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


def test_a_record_that_was_changed_with_its_hashes_is_named(packed: Path, tmp_path: Path) -> None:
    swap = lambda content: content.replace(b'"repeat": 0', b'"repeat": 1')  # noqa: E731
    name = next(name for name in Capsule(packed).manifest.files if name.startswith("run/cells/"))
    found = enginebench.verify(changed(packed, tmp_path / "x.ebz", {name: swap}, honest=True))
    assert name in {each.where for each in found.discrepancies}


def test_a_capsule_reports_like_its_run(run: Path, packed: Path) -> None:
    assert enginebench.open_run(packed).report("json") == enginebench.open_run(run).report("json")
    assert enginebench.open_run(packed).report("csv") == enginebench.open_run(run).report("csv")


def test_every_verb_reads_a_capsule(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of("report", packed.name, "--html") == 0
    assert (tmp_path / "run.html").is_file()
    assert code_of("export", packed.name, "--to", "csv", "-o", "figures.csv") == 0
    assert code_of("compare", packed.name, packed.name) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_that_names_files_elsewhere_is_refused(run: Path, packed: Path, tmp_path: Path) -> None:
    """Ids of cells become file names, so those of a record that somebody else wrote must be ids."""
    with pytest.raises(UserError, match="which is no id"):
        enginebench.open_run(changed(packed, tmp_path / "x.ebz", {"run/run.json": _with_cell("../../../../etc/hostname")}, honest=True))
    found = enginebench.verify(tmp_path / "x.ebz")
    assert {each.where for each in found.discrepancies} == {"run/run.json", "all figures"}


def _with_cell(name: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        data = json.loads(content)
        data.pop("checksum", None)
        schema = data.pop("schema")
        return json.dumps({**data, "cells": [*data["cells"], name], "schema": schema}).encode()

    return change


def test_an_empty_log_is_packed(run: Path, tmp_path: Path) -> None:
    (run / "logs" / "empty.log").write_text("")
    assert enginebench.verify(enginebench.pack(run, tmp_path / "x.ebz").path).holds


# -- secrets ---------------------------------------------------------------------------------------------------------------------


def _in_json(pattern: str, place: Callable[[dict[str, object], str], None]) -> Callable[[Path, str], str]:
    def plant(run: Path, secret: str) -> str:
        file = next(iter(sorted(run.glob(pattern))))
        data = json.loads(file.read_text())
        data.pop("checksum", None)
        schema = data.pop("schema")
        place(data, secret)
        file.write_text(json.dumps({**data, "schema": schema}))
        return f"run/{file.relative_to(run)}"

    return plant


def _in_samples(field: str) -> Callable[[Path, str], str]:
    def plant(run: Path, secret: str) -> str:
        folder = Run(run)
        cell = next(cell for cell in folder.cells() if cell.samples_sha256)
        samples = folder.samples(cell.id)
        assert samples is not None
        n = len(samples)
        values = ({secret: 1.0},) * n if field == "server_timings" else (f"refused: {secret}",) * n
        folder.add_cell(replace(cell, samples_sha256=None), replace(samples, **{field: values}))
        return f"run/samples/{cell.id}.parquet"

    return plant


def _in_log(run: Path, secret: str) -> str:
    file = next(iter(sorted(run.glob("logs/*.log"))))
    file.write_text(f"{file.read_text()}\nINFO starting with {secret}\n")
    return f"run/logs/{file.name}:"


def _in_scenario(run: Path, secret: str) -> str:
    file = run / "scenario.yaml"
    file.write_text(f"{file.read_text()}\n# {secret}\n")
    return "run/scenario.yaml:"


PLACES: dict[str, Callable[[Path, str], str]] = {
    "run.json": _in_json("run.json", lambda data, secret: data.update(name=secret)),
    "launch record": _in_json("launches/*.json", lambda data, secret: data.update(ended=f"died of {secret}")),
    "cell record": _in_json("cells/*.json", lambda data, secret: data.update(log_tail=[f"GET /?key={secret}"])),
    "samples: error": _in_samples("error"),
    "samples: finish reason": _in_samples("finish_reason"),
    "samples: server timings": _in_samples("server_timings"),
    "log": _in_log,
    "scenario": _in_scenario,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["variable", "token"])
def test_a_secret_in_any_file_is_refused(
    place: str, kind: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    secret = SECRET if kind == "variable" else TOKEN
    where = PLACES[place](run, secret)
    assert code_of("pack", str(run), "-o", str(tmp_path / "x.ebz")) == 2
    said = capsys.readouterr().err
    assert where in said
    assert ("the value of MY_API_KEY" if kind == "variable" else "a Hugging Face token") in said
    assert secret not in said
    assert not (tmp_path / "x.ebz").exists()


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        base64.b64encode(f"me:{SECRET}!".encode()).decode(),
        "https://host/?k=Tr0ub4dor%263%2Fplus%22quote",
    ],
)
def test_however_it_is_written(written: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PASSWORD", SECRET)
    _in_log(run, written)
    with pytest.raises(UserError, match="the value of SERVICE_PASSWORD"):
        enginebench.pack(run, tmp_path / "x.ebz")


def test_escapes_of_json_hide_nothing(run: Path, tmp_path: Path) -> None:
    where = _in_json("cells/*.json", lambda data, secret: data.update(log_tail=[secret]))(run, TOKEN)
    file = run / where.removeprefix("run/")
    file.write_text(file.read_text().replace(TOKEN, "".join(f"\\u{ord(c):04x}" for c in TOKEN)))
    with pytest.raises(UserError, match="a Hugging Face token"):
        enginebench.pack(run, tmp_path / "x.ebz")


@pytest.mark.parametrize(
    "token",
    [
        "sk-" + "a1B2" * 10, "sk-proj-" + "a1B2" * 10, "ghp_" + "a1B2" * 9, "github_pat_" + "a1B2_" * 10, "glpat-" + "a1B2" * 5,
        "AKIA" + "A1B2" * 4, "AIza" + "a1B2-" * 7, "nvapi-" + "a1B2" * 12, "xoxb-123456789012-abcdef", "npm_" + "a1B2" * 9,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz", "-----BEGIN OPENSSH PRIVATE KEY-----",
        "Authorization: Bearer abcdefghijklmnop1234", "https://me:hunter22@host/path",
    ],
)  # fmt: skip
def test_known_token_forms(token: str, run: Path, tmp_path: Path) -> None:
    _in_log(run, token)
    with pytest.raises(UserError, match="it holds 1 secret"):
        enginebench.pack(run, tmp_path / "x.ebz")


def test_what_is_no_secret_is_packed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "none")
    _in_log(run, "hf_hub loads hf_xet; Bearer ***; none; a sk-learn model; sha256:" + "0af9" * 16)
    assert enginebench.verify(enginebench.pack(run, tmp_path / "x.ebz").path).holds


# -- what is not packed ----------------------------------------------------------------------------------------------------------


def test_links_are_not_followed(run: Path, tmp_path: Path) -> None:
    (run / "logs" / "x.log").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"logs/x\.log is a link"):
        enginebench.pack(run, tmp_path / "x.ebz")


def test_a_run_that_is_measured_is_not_packed(run: Path, tmp_path: Path) -> None:
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="still being measured"):
            enginebench.pack(run, tmp_path / "x.ebz")


def test_a_damaged_run_is_not_packed(run: Path, tmp_path: Path) -> None:
    samples = next(run.glob("samples/*.parquet"))
    samples.write_bytes(samples.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        enginebench.pack(run, tmp_path / "x.ebz")


# -- rerun -----------------------------------------------------------------------------------------------------------------------


def test_rerun_says_what_differs_here(run: Path, packed: Path, tmp_path: Path) -> None:
    folder = Run(run)
    folder.update(
        replace(folder.record, enginebench="0.0.1", machine={**folder.record.machine, "cpu": "Another CPU", "gpus": [{"name": "H100"}]})
    )
    found = enginebench.rerun(enginebench.pack(run, tmp_path / "x.ebz").path)
    assert found.cells == 4
    said = [str(each) for each in found.differences]
    assert any(each.startswith("harness enginebench: was 0.0.1") for each in said)
    assert any(each.startswith("machine cpu: was Another CPU") for each in said)
    assert "machine gpus: was 1x name H100, here none" in said or facts().gpus
    assert any(each.startswith("engine fake: was builtin 0.1.0, here builtin") for each in said)


def test_rerun_says_which_inputs_are_missing_or_changed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "chat.jsonl"
    prompts.write_text('{"prompt": "Hello"}\n')
    folder = Run(run)
    content = content_of(prompts)
    folder.update(replace(folder.record, inputs={"prompts jsonl:chat.jsonl": content, "trace gone.csv": content}))
    capsule = enginebench.pack(run, tmp_path / "x.ebz").path
    inputs = {each.what: each.now for each in enginebench.rerun(capsule, base=tmp_path).differences if each.kind == "input"}
    assert inputs == {"trace gone.csv": "missing"}
    prompts.write_text('{"prompt": "Other"}\n')
    inputs = {each.what: each.now for each in enginebench.rerun(capsule, base=tmp_path).differences if each.kind == "input"}
    assert set(inputs) == {"prompts jsonl:chat.jsonl", "trace gone.csv"}


def test_rerun_writes_a_scenario_that_plans_the_same_cells(packed: Path, tmp_path: Path) -> None:
    assert code_of("rerun", str(packed), "-o", str(tmp_path / "again.yaml")) == 0
    assert [cell.id for cell in enginebench.plan(tmp_path / "again.yaml").cells] == list(Run(KEPT).record.cells)


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code
