"""YAML with line numbers: what is accepted as which value, and where an error points."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.errors import UserError
from enginebench.inputs.source import dotted, parse

FILE = Path("s.yaml")


@pytest.mark.parametrize(
    ("written", "value"),
    [("no", "no"), ("on", "on"), ("true", True), ("~", None), ("010", 10), ("1e3", 1000.0), ("1:30", "1:30"), ("2026-01-01", "2026-01-01")],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    assert parse(f"a: {written}", FILE).data == {"a": value}


def test_every_key_and_entry_has_its_line() -> None:
    source = parse("a:\n  - b: 1\n  - c: 2\n", FILE)
    assert [source.line(at) for at in (("a",), ("a", 0, "b"), ("a", 1, "c"), ("a", 1, "missing"))] == [1, 2, 3, 3]
    assert str(source.error("wrong", ("a", 1, "c"))).startswith("s.yaml:3: a[1].c: wrong")
    assert dotted(("loads", 0, "concurrency")) == "loads[0].concurrency"


def test_a_merged_mapping_gives_way_to_own_keys() -> None:
    source = parse("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n", FILE)
    assert source.data == {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "s.yaml:2: a: duplicate key"),
        ("a: *b\n", "s.yaml:1: *b has no &b before it"),
        ("a: &a [*a]\n", "s.yaml:1: *a is an alias inside its own value"),
        ("a:\n\tb: 1\n", "write spaces"),
        ("a: !!python/name:os.system x\n", "which is not plain data"),
        ("a: 1\n---\nb: 2\n", "a second document begins here"),
        ("[" * 40, "is nested too deeply"),
        ("a: &a [" + "1, " * 1000 + "]\n" + "".join(f"b{i}: &b{i} [*a, *a, *a]\n" for i in range(80)), "an alias bomb"),
        ("", "is empty"),
    ],
)
def test_errors_name_the_line_and_the_fault(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(text, FILE)
    assert message in str(raised.value)
