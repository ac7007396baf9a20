"""YAML with line numbers: what aliases and merges mean and where they are, and one sentence for everything that is not plain data."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from enginebench.errors import UserError
from enginebench.inputs.source import Source, parse, read

FILE = Path("s.yaml")


def parsed(text: str) -> Source:
    return parse(text, FILE)


def test_aliases_and_merges_keep_the_lines_of_what_they_repeat() -> None:
    found = parsed(
        "base: &base\n  port: 1\n  deep: {key: 2}\nown:\n  <<: *base\n  port: 3\nlist:\n  - {<<: [*base, {last: 4}], first: 5}\n  - *base\n"
    )
    assert found.data == {
        "base": {"port": 1, "deep": {"key": 2}},
        "own": {"port": 3, "deep": {"key": 2}},
        "list": [{"port": 1, "deep": {"key": 2}, "last": 4, "first": 5}, {"port": 1, "deep": {"key": 2}}],
    }
    lines = {("own", "port"): 6, ("own", "deep", "key"): 3, ("list", 0, "port"): 2, ("list", 0, "first"): 8, ("list", 1, "deep", "key"): 3}
    assert {place: found.line(place) for place in lines} == lines


BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG = {
    "bomb": (BOMB, "s.yaml:6: an alias bomb: aliases of aliases repeat more than"),
    "mapping bomb": (BOMB.replace("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "{k: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"), "an alias bomb"),
    "itself": ("a: &a {b: [*a]}", "s.yaml:1: *a is an alias inside its own value"),
    "unknown alias": ("a: 1\nb: *c", "s.yaml:2: *c has no &c before it"),
    "deep list": ("[" * 100_000, "s.yaml:1: is nested too deeply: more than 32 levels"),
    "deep mapping": ("{a: " * 100_000, "s.yaml:1: is nested too deeply"),
    "deep lines": ("".join(" " * i + "a:\n" for i in range(60)), "s.yaml:33: is nested too deeply"),
    "tab": ("name: a\n\tkey: b", "s.yaml:2: invalid YAML: this line has a tab, which cannot indent: write spaces"),
    "tab in a list": ("a:\n\t- b", "s.yaml:2: invalid YAML: this line has a tab"),
    "twice": ("a:\n  b: 1\n  b: 2", "s.yaml:3: a.b: duplicate key"),
    "two documents": ("a: 1\n---\nb: 2", "s.yaml:2: a second document begins here"),
    "object": (
        "a: !!python/object:os.system {b: 1}",
        "s.yaml:1: has the tag tag:yaml.org,2002:python/object:os.system, which is not plain",
    ),
    "set": ("a: !!set {b}", "which is not plain data"),
    "list as a key": ("? [a, b]\n: c", "s.yaml:1: a key must be text"),
    "merge of a number": ("a:\n  <<: 3", "s.yaml:2: `<<` takes a mapping"),
    "control character": ("a: \x00", "s.yaml: invalid YAML: unacceptable character"),
    "long number": ("a: " + "9" * 400, "s.yaml:1: number too long"),
    "nothing": ("# only a comment\n", "s.yaml: is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_sentence_for_what_is_not_a_scenario(name: str) -> None:
    text, sentence = WRONG[name]
    with pytest.raises(UserError) as refused:
        parsed(text)
    assert sentence in str(refused.value)
    assert "\n" not in refused.value.message


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("a: 1\n# " + "x" * 4_000_000)
    wrong = {
        "pipe.yaml": "is a pipe or a device",
        ".": "is a folder",
        "large.yaml": "has 4.0 MB, more than the 4 MB",
        "no.yaml": "file not found",
    }
    for name, sentence in wrong.items():
        with pytest.raises(UserError, match=sentence):
            read(tmp_path / name)


def test_a_long_file_takes_time_in_proportion() -> None:
    began = time.process_time()
    parsed("list:\n" + "".join(f"  - {{engine: fake, model: m{i}, precision: &p{i} none, label: *p{i}}}\n" for i in range(20_000)))
    assert time.process_time() - began < 5.0, "0.5 s on a machine that does nothing else"
