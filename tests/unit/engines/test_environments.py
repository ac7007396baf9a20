"""Engine environments: made once per set of pins, rebuilt when half-made, and failing with what pip said. No network."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest
from enginebench.adapter import installed_version
from enginebench.engines import environments
from enginebench.engines.environments import Pins, install, python_of
from enginebench.errors import UserError


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    """A requirement that a wheel made here satisfies."""
    path = tmp_path / "tiny_engine-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny_engine.py", "ANSWER = 42\n")
        file.writestr("tiny_engine-1.2.3.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.2.3\n")
        file.writestr("tiny_engine-1.2.3.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("tiny_engine-1.2.3.dist-info/RECORD", "")
    return f"tiny-engine @ {path.as_uri()}"


def test_install_finds_and_reads_back_the_package(wheel: str) -> None:
    said: list[str] = []
    assert python_of("tiny", Pins((wheel,))) is None
    python = install("tiny", Pins((wheel,)), said.append)
    assert python == python_of("tiny", Pins((wheel,)))
    assert installed_version(python, "tiny_engine") == installed_version(python, "Tiny.Engine") == "1.2.3"
    assert installed_version(python, "vllm") is None
    assert list(python.parent.parent.glob("lib/python*/site-packages/__pycache__/tiny_engine*.pyc"))  # compiled before its first start
    assert [line.split(" ")[1] for line in said] == ["making", "installing", "ready"]
    said.clear()
    assert install("tiny", Pins((wheel,)), said.append) == python
    assert said == []


def test_what_is_unwanted_is_taken_out_again(wheel: str) -> None:
    kept = install("tiny", Pins((wheel,)), lambda _: None)
    python = install("tiny", Pins((wheel,), unwanted=("tiny-engine", "never-there")), lambda _: None)
    assert python != kept
    assert installed_version(python, "tiny_engine") is None
    assert installed_version(kept, "tiny_engine") == "1.2.3"


def test_other_pins_are_another_environment(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==2.0\n")
    first = install("tiny", Pins((), constraints), lambda _: None)
    constraints.write_text("numpy==2.1\n")
    assert python_of("tiny", Pins((), constraints)) is None
    assert install("tiny", Pins((), constraints), lambda _: None) != first
    assert first.exists()


def test_a_half_made_environment_is_built_anew() -> None:
    python = install("tiny", Pins(()), lambda _: None)
    folder = python.parent.parent
    (folder / environments.COMPLETE).unlink()
    (folder / "rubbish").touch()
    assert python_of("tiny", Pins(())) is None
    assert install("tiny", Pins(()), lambda _: None) == python
    assert not (folder / "rubbish").exists()


def test_two_at_once_build_it_once() -> None:
    said: list[str] = []
    threads = [threading.Thread(target=install, args=("tiny", Pins(()), said.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("making" in line for line in said) == 1


def test_failure_says_what_pip_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pip could not install it") as failed:
        install("tiny", Pins((f"nothing @ {(tmp_path / 'nothing-1-py3-none-any.whl').as_uri()}",)), lambda _: None)
    assert "No such file or directory" in failed.value.message
    assert "whole output" in (failed.value.advice or "")
    assert python_of("tiny", Pins(())) is None
