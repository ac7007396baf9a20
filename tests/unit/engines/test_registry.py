"""All adapters load the same way: the nearest one wins, and a broken one affects only its own users."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from enginebench.engines import registry
from enginebench.errors import UserError

ADAPTER = """
from enginebench.adapter import Adapter, Unsupported


class Mine(Adapter):
    name = "{name}"
    title = "Mine"

    def find(self, python):
        return []

    def launch(self, deployment, install, site):
        raise Unsupported("never")
"""


def adapter_file(folder: Path, name: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(ADAPTER.format(name=name))
    return file


def test_a_file_named_by_the_user_wins_and_brings_its_constraints(tmp_path: Path) -> None:
    file = adapter_file(tmp_path, "fake")
    found = registry.discover([file])["fake"]
    assert found.title == "Mine"
    assert registry.constraints_of(found) is None
    (tmp_path / "fake.constraints.txt").write_text("a==1\n")
    assert registry.constraints_of(found) == tmp_path / "fake.constraints.txt"
    assert registry.constraints_of(registry.discover()["transformers"]) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef (", ":2: cannot be loaded: SyntaxError"),
        ("x = 1\n1 / 0\n", ":2: cannot be loaded: ZeroDivisionError"),
        ("", "defines 0"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        registry.discover([file])
    assert message in str(error.value)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(UserError, match="no such adapter file"):
        registry.discover([Path("/nowhere.py")])


def adapter_folder(folder: Path, name: str, title: str = "Mine") -> Path:
    """With its options in a module of their own."""
    own = folder / name
    own.mkdir(parents=True)
    text = (
        ADAPTER.format(name=name)
        .replace('"Mine"', "TITLE")
        .replace("import Adapter, Unsupported", "import Adapter, Unsupported\n\nfrom .options import TITLE")
    )
    (own / "__init__.py").write_text(text)
    (own / "options.py").write_text(f'TITLE = "{title}"\n')
    return own


def test_an_adapter_may_be_a_folder_of_files(tmp_path: Path) -> None:
    own = adapter_folder(tmp_path, "fake")
    (tmp_path / "fake.constraints.txt").write_text("a==1\n")
    for named in (own, own / "__init__.py"):
        found = registry.discover([named])["fake"]
        assert (found.title, registry.path_of(type(found))) == ("Mine", own)
        assert registry.constraints_of(found) == tmp_path / "fake.constraints.txt"
    other = registry.discover([adapter_folder(tmp_path / "other", "fake", "Other")])["fake"]
    assert other.title == "Other", "the modules of another folder of this name are not taken for its own"
    (own / "options.py").write_text("\nTITLE = 1 // 0\n")  # another size: byte code of the same second and size would be taken for current
    with pytest.raises(UserError, match=r"options\.py:2: cannot be loaded: ZeroDivisionError"):
        registry.discover([own])
    (own / "options.py").write_text("TITLE = (\n")
    with pytest.raises(UserError, match=r"options\.py:1: cannot be loaded: SyntaxError"):
        registry.discover([own])
    (own / "__init__.py").unlink()
    with pytest.raises(UserError, match=r"fake/__init__\.py: no such adapter file"):
        registry.discover([own])
    assert {"vllm", "sglang", "llamacpp", "fake"} <= set(registry.discover()), "folders and files are found alike"


def test_a_broken_plugin_is_reported_and_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("broken", "no_such_package_at_all:Engine", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **_: [point])
    found = registry.discover()
    sound, broken = found.survey()
    assert {"fake", "llamacpp"} <= {adapter.name for adapter in sound}
    assert "no_such_package_at_all" in broken["broken"]
    assert "broken" in found
    with pytest.raises(UserError, match="no_such_package_at_all"):
        found.need("broken")
