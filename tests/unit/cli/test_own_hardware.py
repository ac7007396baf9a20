"""A user's own hardware and models work in every verb: from a file here, from the configuration folder, and written by their figures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.errors import Exit, UserError
from enginebench.machine.accelerators import Gpu
from enginebench.physics.catalogue import find_model, need_device, read_machine, self_contained
from enginebench.records.run_folder import Run
from enginebench.runner import doctor
from enginebench.scenario import planning

INLINE = "name=box,memory=96gb,bandwidth=1800gb/s"
HARDWARE = """\
devices:
  box:
    aliases: [our-box]
    drivers: [Example 9000]
    memory_gib: 96
    bandwidth_gbs: 1800
    tflops: {bf16: 200}
"""
MODELS = """\
models:
  ours:
    config: {model_type: mixtral, num_hidden_layers: 4, hidden_size: 1024, num_attention_heads: 8, num_key_value_heads: 8,
             intermediate_size: 2048, num_local_experts: 8, num_experts_per_tok: 2, vocab_size: 32000, max_position_embeddings: 8192}
"""
SCENARIO = """\
name: own
{hardware}
models: {{ours: {{checkpoints: {{bf16: someone/ours}}}}}}
deployments: [{{engine: vllm, model: ours, precision: bf16}}]
loads: [{{concurrency: 1, input_tokens: 64, output_tokens: 32, requests: 8}}]
"""
CLAIMS = """\
sources: {{A: {{title: a}}}}
serving:
  - {{id: one, source: A, engine: vllm, model: mixtral-8x7b, precision: fp8, hardware: "{hardware}", concurrency: 1, output_tok_s: 20}}
  - {{id: wrong, source: A, engine: vllm, model: mixtral-8x7b, precision: fp8, hardware: "{hardware}", concurrency: 1, output_tok_s: 20,
     bandwidth_gb_s: 9000}}
"""


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def config(tmp_path: Path, name: str, text: str) -> Path:
    folder = tmp_path / "config" / "enginebench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def run(*arguments: str) -> str:
    outcome = CliRunner().invoke(bench, arguments, catch_exceptions=False, standalone_mode=False)
    assert outcome.return_value in (None, Exit.OK, Exit.THRESHOLD), outcome.output
    return outcome.output


def verbs(hardware: str, model: str = "mixtral-8x7b") -> Sequence[str]:
    """What every verb that takes hardware says about it."""
    Path("s.yaml").write_text(SCENARIO.format(hardware=f'hardware: "2x{hardware}"'), encoding="utf-8")
    Path("claims.yaml").write_text(CLAIMS.format(hardware=hardware), encoding="utf-8")
    return (
        run("fit", model, "--hardware", f"2x{hardware}", "--precision", "fp8"),
        run("ceiling", model, "--hardware", f"2x{hardware}", "--batch", "1"),
        run("offload", model, "--hardware", f"{hardware}+128gb", "--precision", "q4_0"),
        run("plan", "s.yaml", "--json"),
        run("plan", "s.yaml", "--hardware", f"4x{hardware}", "--json"),
        run("audit", "claims.yaml"),
    )


@pytest.mark.parametrize("hardware", [INLINE, "box", "our-box"])
def test_every_verb_takes_it(hardware: str, tmp_path: Path) -> None:
    config(tmp_path, "hardware.yaml", HARDWARE)
    fit, ceiling, offload, plan, other, audit = verbs(hardware)
    assert "It fits." in fit
    assert "2x box" in fit
    assert "1,800 GB/s per device" in ceiling
    assert "1x box + 128 GB host" in offload
    assert json.loads(plan)["hardware"] == "2x box"
    assert json.loads(other)["hardware"] == "4x box", "the command comes before the scenario"
    assert "2 claims: 1 inconsistent, 1 plausible" in audit
    assert "has 1,800 GB/s, the text states 9000" in re.sub(r"\s+", " ", audit)


def test_a_file_here_comes_before_the_configuration_folder_and_both_before_the_catalogue(tmp_path: Path) -> None:
    assert need_device("h100").bandwidth == 3350e9
    config(
        tmp_path, "hardware.yaml", "devices: {h100: {memory_gib: 80, bandwidth_gbs: 1000}, only-there: {memory_gib: 8, bandwidth_gbs: 10}}"
    )
    assert need_device("h100").bandwidth == 1000e9
    Path("hardware.yaml").write_text("schema_version: 1\ndevices: {h100: {memory_gib: 80, bandwidth_gbs: 2000}}\n", encoding="utf-8")
    assert need_device("h100").bandwidth == 2000e9
    assert need_device("h100-sxm").bandwidth == 3350e9, "another name of the catalogue's"
    assert need_device("only-there").memory == 8 * 2**30
    Path("hardware.yaml").write_text("devices: {h100-sxm-80gb: {memory_gib: 80, bandwidth_gbs: 500}}\n", encoding="utf-8")
    assert need_device("h100-sxm").bandwidth == 500e9, "a device of the catalogue, with its other names"


def test_own_models(tmp_path: Path) -> None:
    config(tmp_path, "models.yaml", MODELS.replace("ours:", "ours:\n    aliases: [Org/Ours]\n    native: fp8"))
    found = find_model("org/ours")
    assert found is not None
    assert (found.name, found.native, found.model.params) == ("ours", "fp8", found.published.total * 1e9)
    assert "ours in fp8" in run("fit", "ours", "--hardware", "l4")
    Path("models.yaml").write_text(MODELS, encoding="utf-8")
    fit, *_ = verbs("h100", "ours")
    assert "It fits." in fit
    assert "ours in bf16" in run("fit", "ours", "--hardware", "l4")
    Path("s.yaml").write_text(SCENARIO.format(hardware="hardware: h100"), encoding="utf-8")
    assert json.loads(run("plan", "s.yaml", "--json"))["launches"][0]["memory"]["fits"] is True


@pytest.mark.parametrize(
    ("file", "text", "line", "key", "message"),
    [
        ("hardware.yaml", "devices:\n  box:\n    memory_gib: 96\n", 2, "devices.box.bandwidth_gbs", "is missing"),
        ("hardware.yaml", "devices:\n  box:\n    memory_gb: 96\n    bandwidth_gbs: 1\n", 3, "devices.box.memory_gb", "is not a known key"),
        ("hardware.yaml", "devices:\n  box: {bandwidth_gbs: 1,\n    memory_gib: lots}\n", 3, "devices.box.memory_gib", "must be a number"),
        ("hardware.yaml", "devices:\n  box: {memory_gib: 1, bandwidth_gbs: 1,\n    tflops: {bf61: 1}}\n", 3, "devices.box.tflops.bf61", ""),
        ("hardware.yaml", "devices:\n  Box: {memory_gib: 1, bandwidth_gbs: 1}\n", 2, "devices.Box", "cannot be called"),
        ("hardware.yaml", "devices:\n  2xh100: {memory_gib: 1, bandwidth_gbs: 1}\n", 2, "devices.2xh100", "reads as 2 devices"),
        ("hardware.yaml", "device:\n  box: {memory_gib: 1, bandwidth_gbs: 1}\n", 1, None, "the key `devices` is missing"),
        ("hardware.yaml", "devices: [box]\n", 1, "devices", "must be a mapping"),
        ("hardware.yaml", "schema_version: 7\ndevices: {box: {memory_gib: 1, bandwidth_gbs: 1}}\n", 1, "schema_version", "must be 1"),
        ("hardware.yaml", "devices: {a: {memory_gib: 1, bandwidth_gbs: 1, aliases: [b]},\n  b: {memory_gib: 1, bandwidth_gbs: 1}}\n", 2,
         "devices.b", "also a name of a"),
        ("hardware.yaml", "devices: {box: 5}\n", 1, "devices.box", "must be a mapping"),
        ("hardware.yaml", "devices:\n\tbox: 5\n", 2, None, "tab"),
        ("models.yaml", "models:\n  ours:\n    hub: a/b\n", 2, "models.ours.config", "is missing"),
        ("models.yaml", "models:\n  ours:\n    conf: {}\n", 3, "models.ours.conf", "is not a known key"),
        ("models.yaml", MODELS.replace("config:", "native: fp7\n    config:"), 3, "models.ours.native", "unknown precision 'fp7'"),
        ("models.yaml", MODELS.replace("hidden_size: 1024, ", ""), 3, "models.ours.config.hidden_size", "hidden_size"),
        ("models.yaml", MODELS.replace("hidden_size: 1024", "hidden_size: big"), 3, "models.ours.config.hidden_size", "big"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_key_and_line(file: str, text: str, line: int, key: str | None, message: str) -> None:
    Path(file).write_text(text, encoding="utf-8")
    outcome = CliRunner().invoke(bench, ["fit", "mixtral-8x7b", "--hardware", "h100"], standalone_mode=False)
    error = outcome.exception
    assert isinstance(error, UserError), outcome.output
    assert (error.file, error.line, error.key) == (Path(file).resolve(), line, key)
    assert message in error.message


# -- an unknown device -------------------------------------------------------------------------------------------------------------


def snippet(advice: str | None) -> str:
    """The lines that can be pasted into hardware.yaml."""
    lines = (advice or "").split("\n")
    begin = next(i for i, line in enumerate(lines) if line.strip() == "devices:")
    end = next(i for i in range(begin, len(lines)) if lines[i].strip().startswith("or "))
    return "\n".join(lines[begin:end]) + "\n"


@pytest.mark.parametrize("name", ["foo", "Foo 9000", "h1000", "rtx_7090"])
def test_an_unknown_device_says_how_to_add_it(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown device '{name.lower().replace(' ', '-').replace('_', '-')}'") as error:
        read_machine(f"4x{name}")
    stated = re.search(r"--hardware '([^']+)'", error.value.advice or "")
    assert stated is not None
    assert read_machine(stated[1]).device.memory == 96e9
    Path("hardware.yaml").write_text(snippet(error.value.advice), encoding="utf-8")
    machine = read_machine(f"4x{name}")
    assert (machine.count, machine.device.bandwidth) == (4, 1800e9)


def test_an_unknown_gpu_here_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = (Gpu("Example '9000' (rev. 2)", 96 * 2**30),) * 2
    monkeypatch.setattr("enginebench.machine.accelerators.gpus", lambda: gpus)
    monkeypatch.setattr(doctor, "gpus", lambda: gpus)
    Path("models.yaml").write_text(MODELS, encoding="utf-8")
    Path("s.yaml").write_text(SCENARIO.format(hardware=""), encoding="utf-8")
    found = planning.plan("s.yaml")
    assert found.bounds is None
    assert "what fits is not checked: unknown device 'Example '9000' (rev. 2)'" in run("plan", "s.yaml")
    diagnosis = doctor._gpus()
    assert (diagnosis.level, "unknown device" in diagnosis.text) == ("warn", True)
    Path("hardware.yaml").write_text(snippet(found.unchecked), encoding="utf-8")
    again = planning.plan("s.yaml")
    assert again.bounds is not None
    assert (again.bounds.machine.count, again.bounds.machine.device.bandwidth) == (2, 1800e9)
    assert doctor._gpus().level == "ok"


def test_the_command_comes_before_a_scenario_whose_hardware_is_unknown_here() -> None:
    Path("models.yaml").write_text(MODELS, encoding="utf-8")
    Path("s.yaml").write_text(SCENARIO.format(hardware="hardware: theirs"), encoding="utf-8")
    with pytest.raises(UserError, match="unknown device 'theirs'") as error:
        planning.plan("s.yaml")
    assert error.value.line == 2
    assert json.loads(run("plan", "s.yaml", "--hardware", "2xh100", "--json"))["hardware"] == "2x h100-sxm-80gb"


def test_what_is_stored_needs_no_file_of_the_user() -> None:
    Path("hardware.yaml").write_text(HARDWARE, encoding="utf-8")
    stored = self_contained("2xour-box+64gb")
    Path("hardware.yaml").unlink()
    machine = read_machine(stored)
    assert (machine.name, machine.device.flops) == ("2x box + 64 GB host", {"bf16": 200e12})


def test_a_run_is_audited_on_what_was_stated(synthetic_run: Run) -> None:
    data = json.loads(run("audit", str(synthetic_run.path), "--hardware", f"2x{INLINE}", "--json"))
    assert {each["verdict"] for each in data["findings"]} <= {"plausible", "impossible as stated", "not known here"}
    with pytest.raises(UserError, match="unknown device 'foo'"):
        run("audit", str(synthetic_run.path), "--hardware", "4xfoo")


def test_an_unknown_device_of_a_claim_is_a_gap_of_ours() -> None:
    Path("claims.yaml").write_text(CLAIMS.format(hardware="4xfoo"), encoding="utf-8")
    data = json.loads(run("audit", "claims.yaml", "--json"))
    assert {each["id"]: each["verdict"] for each in data["findings"]}["one"] == "not known here"
    Path("claims.yaml").write_text(CLAIMS.format(hardware="name=h100,memory=80gb,bandwidth=9000gb/s"), encoding="utf-8")
    data = json.loads(run("audit", "claims.yaml", "--json"))
    assert {each["verdict"] for each in data["findings"]} == {"inconsistent"}
    assert "the catalogue has 3,350 GB/s" in " ".join(data["findings"][0]["reasons"])
