"""JSON of other tools, read piece by piece: the same as json.loads, with little memory, and one sentence about what is damaged."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from enginebench.errors import UserError
from enginebench.records import json_stream
from enginebench.records.json_stream import Skim, paths, paths_in, read_objects
from hypothesis import given
from hypothesis import strategies as st


def plain(value: Any) -> Any:
    """Without arrays, as json has it."""
    if isinstance(value, array):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, width=32) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(st.dictionaries(st.text(max_size=6), VALUES, max_size=5), min_size=1, max_size=4), st.sampled_from([None, 1]))
def test_what_is_read_is_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]], indent: int | None
) -> None:
    file = tmp_path_factory.mktemp("json") / "a.json"
    file.write_text("\n".join(json.dumps(each, indent=indent) for each in objects))
    assert [plain(found) for _, found in read_objects(file)] == objects
    file.write_text(json.dumps(objects, indent=indent))
    assert [plain(found) for _, found in read_objects(file)] == objects


def test_objects_have_their_lines_and_python_writes_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('\ufeff{"a": 1}\n\n{"a": NaN,\n "b": [-Infinity, 2], "c": "is NaN, ok"}\n{"a": 3}')
    lines, found = zip(*read_objects(file), strict=True)
    assert lines == (1, 3, 5)
    assert math.isnan(found[1]["a"])
    assert found[1]["b"].tolist() == [-math.inf, 2]


def test_rows_are_handed_over_and_not_kept_and_what_is_skipped_is_not_built(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"runs": [{"rows": [{"x": i, "text": "long"} for i in range(3)], "n": 3}], "gaps": [[1.0, 2.0], []]}))
    rows: list[Any] = []
    skim = Skim(paths("runs.*.rows.*.text"), {("runs", "*", "rows"): rows.append, ("gaps",): rows.append})
    ((_, found),) = read_objects(file, skim)
    assert [plain(row) for row in rows] == [{"x": 0}, {"x": 1}, {"x": 2}, [1.0, 2.0], []]
    assert plain(found) == {"runs": [{"rows": [], "n": 3}], "gaps": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": [1, 2', "a.json:1: is damaged: invalid JSON (it ends too early)"),
        (b'{"a": 1}\n{"a": tru}', "a.json:2: is damaged: invalid JSON ("),
        (b'{"a": "\xff\xfe"}', "a.json:1: is damaged: invalid JSON ("),
        (b'{"a": 1} trailing', "is damaged"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_objects(tmp_path / "a.json"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_on_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    monkeypatch.setattr(json_stream, "MOST_KEPT", 100)
    file.write_text(json.dumps({"a": [{} for _ in range(101)]}, indent=1))
    with pytest.raises(UserError, match="more than 100 values"):
        list(read_objects(file))
    monkeypatch.setattr(json_stream, "MOST_NUMBERS", 100)
    file.write_text(json.dumps({"a": [1] * 101}, indent=1))
    with pytest.raises(UserError, match="more than 100 numbers"):
        list(read_objects(file))
    monkeypatch.setattr(json_stream, "MOST_SILENT", 1 << 18)
    file.write_text(json.dumps({"a": "x" * (1 << 19)}, indent=1))
    with pytest.raises(UserError, match="has a text of more than"):
        list(read_objects(file))


def test_no_file_and_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "is not a file"), ("none", "No such file"), (".", "is not a file")):
        with pytest.raises(UserError, match=message):
            list(read_objects(tmp_path / name))


def test_paths_of_the_first_object(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('[{"a": [{"b": [[1]], "c": {"d": 2}}]}, {"z": 1}]')
    *_, seen = paths_in(file)
    assert seen == {"a", "a.*.b", "a.*.c", "a.*.c.d"}


MEASURE = """
import resource, sys
from pathlib import Path
from enginebench.runner.imports import _found, cells_of

(one,) = _found(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(cell,) = cells_of(one)
print(len(cell.requests), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_large_file_takes_a_fraction_of_its_size_in_memory(tmp_path: Path) -> None:
    """50 MB take less than 20 MB. 1 GB took 217 MB (102,040 requests of `vllm bench serve`) and 297 MB (516,223 of AIPerf) in all."""
    files = Path(__file__).with_name("imported")
    data = json.loads((files / "vllm" / "detailed.json").read_text())
    n, text = 8_000, "a long reply " * 500
    lists = {name: value[:1] * n for name, value in data.items() if isinstance(value, list)} | {"generated_texts": [text] * n}
    counts = {"num_prompts": n, "completed": n, "failed": 0, "total_input_tokens": 64 * n, "total_output_tokens": 16 * n}
    file = tmp_path / "serve.json"
    file.write_text(json.dumps(data | counts | lists))
    assert file.stat().st_size > 50e6
    done = subprocess.run([sys.executable, "-c", MEASURE, str(file)], capture_output=True, text=True, check=True)
    requests, grown_mb = map(int, done.stdout.split())
    assert requests == n
    assert grown_mb < 20
