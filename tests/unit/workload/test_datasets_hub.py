"""Data sets of a hub: what is asked of the package `datasets`, what is made of its answers, and what is said where there are none."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from enginebench.errors import UserError
from enginebench.workload import check, datasets, make_prompts
from enginebench.workload.datasets import Turn, read_records
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from .test_datasets import KNOWN, SHAREGPT, recorded


class Rows(list[dict[str, object]]):
    """A stand-in for `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self for name in row))

    def select_columns(self, names: list[str]) -> Rows:
        return Rows({name: row.get(name) for name in names} for row in self)


Hub = dict[tuple[str, str | None, str], Rows]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in for the package `datasets`: what it has, by name, configuration and split. The hub itself knows every name."""
    have: Hub = {}
    module = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)

    def load_dataset(name: str, config: str | None, *, split: str) -> Rows:
        if (name, config, split) not in have:
            raise RuntimeError(f"no such part of {name}\nbut there are: others")
        return have[name, config, split]

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_options: None)
    datasets._read_hub.cache_clear()  # another test's data set of the same name
    return have


def test_a_data_set_of_the_hub(hub: Hub) -> None:
    hub["org/chat", "main", "test"] = Rows([{"q": "one"}, {"q": "two"}])
    load = recorded(prompts="hf:org/chat:main/test#q", output_tokens=5)
    assert {p.text for p in make_prompts(KNOWN, load, 2, salt="")} == {"one", "two"}


def test_what_no_prompt_is_made_of_is_not_even_decoded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def select_columns(self: Rows, names: list[str]) -> Rows:
        asked.append(names)
        return self

    monkeypatch.setattr(Rows, "select_columns", select_columns)
    hub["org/pictures", None, "train"] = Rows([{"image": b"", "prompt": "one", "answer": "two"}])
    assert read_records("hf:org/pictures", Path()) == ((Turn("one", "two"),),)
    assert asked == [["prompt", "answer"]]


def test_columns_of_the_hub_are_named_where_none_fits(hub: Hub) -> None:
    hub["org/other", None, "train"] = Rows([{"title": "t", "body": "b"}])
    with pytest.raises(UserError, match="no record holds a prompt") as caught:
        read_records("hf:org/other", Path())
    assert "body, title" in (caught.value.advice or "")


def test_what_the_package_cannot_read_is_one_line_with_all_it_says(hub: Hub) -> None:
    with pytest.raises(UserError, match=r"org/a cannot be read \(RuntimeError: no such part of org/a but there are: others\)") as caught:
        read_records("hf:org/a", Path())
    assert "hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]" in (caught.value.advice or "")
    assert "jsonl:" in (caught.value.advice or "")


class _HiddenError(RepositoryNotFoundError):
    def __init__(self) -> None:
        Exception.__init__(self, "401")


@pytest.mark.parametrize(
    ("answer", "message", "advice"),
    [
        (_HiddenError(), "the hub has no data set org/absent", "HF_TOKEN"),
        (TimeoutError("ten seconds\nare over"), r"cannot be asked .* \(TimeoutError: ten seconds are over\)", "HF_HUB_OFFLINE=1"),
    ],
)
def test_the_hub_is_asked_before_the_package_retries(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, answer: Exception, message: str, advice: str
) -> None:
    hub["org/absent", None, "train"] = Rows([{"prompt": "never read"}])

    def dataset_info(_self: HfApi, _name: str, *, timeout: float) -> None:
        assert timeout <= 10
        raise answer

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    with pytest.raises(UserError, match=message) as caught:
        read_records("hf:org/absent", Path())
    assert advice in (caught.value.advice or "")


def test_offline_what_was_downloaded_before_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_info(*_args: object, **_options: object) -> None:
        raise OfflineModeIsEnabled

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    hub["org/kept", None, "train"] = Rows([{"prompt": "one"}])
    assert read_records("hf:org/kept", Path()) == ((Turn("one"),),)


def test_a_folder_of_the_same_name_is_not_taken_for_the_hubs(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub["org/here", None, "train"] = Rows([{"prompt": "one"}])
    (tmp_path / "org" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the folder org/here exists here"):
        read_records("hf:org/here", Path())


def test_the_package_itself_reads_conversations_prompts_splits_and_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real `datasets`, where it is installed; only the way from a name to the hub is replaced."""
    package = pytest.importorskip("datasets")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    load_dataset = package.load_dataset
    monkeypatch.setattr(package, "load_dataset", lambda name, *args, **options: load_dataset(str(tmp_path / name), *args, **options))
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_options: None)
    datasets._read_hub.cache_clear()
    files: dict[str, Sequence[object]] = {
        "org/chats/train.jsonl": SHAREGPT[:3],
        "org/plain/train.jsonl": [{"prompt": f"p{n}", "completion": "c", "other": n} for n in range(3)],
        "org/plain/test.jsonl": [{"prompt": "tested", "completion": None, "other": None}],
        "org/parts/a.jsonl": [{"question": "of a"}],
        "org/parts/b.jsonl": [{"question": "of b"}],
    }
    for name, rows in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(map(json.dumps, rows)))
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in "ab")
    (tmp_path / "org/parts/README.md").write_text(f"---\nconfigs:\n{configs}---\n")

    assert read_records("hf:org/chats", tmp_path) == ((Turn("the one", "what is that"),), (Turn("two", "it is", system="be kind"),))
    assert read_records("hf:org/plain/train[:2]", tmp_path) == ((Turn("p0", "c"),), (Turn("p1", "c"),))
    assert read_records("hf:org/plain/test", tmp_path) == ((Turn("tested"),),)
    assert read_records("hf:org/parts:b", tmp_path) == ((Turn("of b"),),)
    for reference, message in (
        ("hf:org/plain/nope", r"nope.*'train', 'test'"),
        ("hf:org/parts", r"'a', 'b'"),
        ("hf:org/plain#nope", "under nope"),
        ("hf:org/absent", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_records(reference, tmp_path)
        assert caught.value.advice


def test_without_the_package_there_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for ask in (lambda: check(recorded(prompts="hf:org/name"), Path()), lambda: read_records("hf:org/name", Path())):
        with pytest.raises(UserError, match="needs the package datasets") as caught:
            ask()
        assert caught.value.advice == "pip install datasets"
