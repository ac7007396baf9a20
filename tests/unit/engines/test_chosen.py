"""An engine in an environment of a person's own: chosen, started first, forgotten; and which packages such a Python sees."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.adapter import installed_version
from enginebench.cli import bench
from enginebench.engines.installed import forget_engine, installs_of, use_engine
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.machine.installs import installed_packages


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))


def environment(folder: Path, packages: str = "site-packages", **versions: str) -> Path:
    """An interpreter with these packages, as files on a disk."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    for name, version in versions.items():
        add(folder / "lib" / "python3.12" / packages, name, version)
    return python


def add(site: Path, name: str, version: str) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_chosen_environment_is_the_first_install(tmp_path: Path) -> None:
    python, other = environment(tmp_path / "a", transformers="5.17.0"), environment(tmp_path / "b", transformers="5.18.0")
    engine = use_engine("transformers", python)
    assert (engine.installs[0].version, engine.installs[0].python) == ("5.17.0", python), "the link, not what it leads to"
    assert use_engine("transformers", other).installs[0].version == "5.18.0"
    assert installs_of(discover()["vllm"]) == [], "only the engine that was named"
    other.unlink()
    assert installs_of(discover()["transformers"]) == [], "the environment is gone"
    forget_engine("transformers")


def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path) -> None:
    python = environment(tmp_path / "a", transformers="5.17.0")
    for engine, where, message in (
        ("vllm", python, "vLLM is not installed for"),
        ("transformers", tmp_path, "is no program that can be run"),
        ("transformers", tmp_path / "nowhere", "is no program that can be run"),
        ("transformer", python, "there is no engine 'transformer'"),
    ):
        with pytest.raises(UserError, match=message):
            use_engine(engine, where)
    with pytest.raises(UserError, match="no interpreter was chosen for Transformers"):
        forget_engine("transformers")
    assert not (tmp_path / "home").exists(), "nothing was chosen"


def test_the_command_uses_and_forgets(tmp_path: Path) -> None:
    python = environment(tmp_path / "a", transformers="5.17.0")
    for arguments, code, text in (
        (["use", "transformers", str(python)], 0, "transformers: serve 5.17.0"),
        (["use", "transformers", "--forget"], 0, "transformers: not installed"),
        (["use", "transformers"], 2, "write the path of a Python, or --forget"),
        (["use", "transformers", str(python), "--forget"], 2, "write the path of a Python, or --forget"),
    ):
        done = CliRunner().invoke(bench, ["engines", *arguments])
        assert (done.exit_code, text in done.output) == (code, True), done.output


def test_a_python_sees_its_own_packages_those_of_pth_files_and_the_systems(tmp_path: Path) -> None:
    base = environment(tmp_path / "base", torch="2.11.0", numpy="2.5.2", packages="dist-packages")
    site = tmp_path / "base" / "lib" / "python3.12" / "dist-packages"
    stacked = environment(tmp_path / "stacked", numpy="2.4.0")
    own = tmp_path / "stacked" / "lib" / "python3.12" / "site-packages"
    (own / "base.pth").write_text(f"# a comment\nimport os; print('never run')\n\n{site}\n{tmp_path / 'nowhere'}\n")
    assert installed_packages(stacked) == {"numpy": "2.4.0", "torch": "2.11.0"}, "the first on the path is the one that is imported"
    venv = environment(tmp_path / "venv", click="8.1")
    settings = tmp_path / "venv" / "pyvenv.cfg"
    settings.write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    assert installed_version(venv, "torch") is None
    settings.write_text(f"home = {base.parent}\ninclude-system-site-packages = true\n")
    assert (installed_version(venv, "torch"), installed_version(venv, "click")) == ("2.11.0", "8.1")
