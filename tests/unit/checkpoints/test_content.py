"""Contents: whole files up to a limit, samples above it, folders file by file, and what is remembered about a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from enginebench.checkpoints import content
from enginebench.checkpoints.content import content_of, named_files


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(content, "_known", {})


def test_a_file_is_its_size_and_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"weights")
    found = content_of(file)
    assert (found.size, found.sha256) == (7, hashlib.sha256(b"weights").hexdigest())
    assert found.short == found.sha256[:12]
    file.write_bytes(b"WEIGHTS")
    assert not content_of(file).same_as(found)
    assert "->" in found.changes(content_of(file))


def test_a_byte_changed_in_place_shows_though_the_time_of_change_is_put_back(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(3 << 20))
    before, times = content_of(file), file.stat()
    with file.open("r+b") as out:
        out.seek(2_000_001)
        out.write(b"\x01")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not content_of(file).same_as(before)


def test_a_large_file_is_sampled_until_its_whole_hash_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "AT_ONCE", 1 << 20)
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(9 << 20))
    quick = content_of(file)
    assert quick.sha256 is None
    assert quick.short.startswith("~")
    whole = content_of(file, whole=True)
    assert whole.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert whole.same_as(quick)
    monkeypatch.setattr(content, "_known", {})
    assert content_of(file) == whole, "cached by inode"
    for at in (0, (4 << 20) + 1, (9 << 20) - 1):  # in the header, in a block, in the last bytes
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        other = tmp_path / "other.bin"
        other.write_bytes(data)
        assert not content_of(other).same_as(quick), at


def test_a_folder_names_the_files_that_changed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", ".cache"):
        (folder / name).write_text(name)
    before = content_of(folder)
    (folder / ".cache").write_text("ignored")
    assert content_of(folder).same_as(before)
    (folder / "chat_template.jinja").write_text("{{ other }}")
    (folder / "added.json").write_text("{}")
    (folder / "config.json").unlink()
    assert before.changes(content_of(folder)) == "chat_template.jinja, config.json, added.json"


def test_all_parts_of_a_split_file_count(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for part in parts:
        part.write_bytes(b"part")
    before = content_of(parts[0])
    assert before.size == 8
    parts[1].write_bytes(b"PART")
    assert before.changes(content_of(parts[0])) == "m-00002-of-00002.gguf"


def test_options_name_files_by_absolute_path(tmp_path: Path) -> None:
    draft = tmp_path / "draft.gguf"
    draft.write_bytes(b"x")
    assert list(named_files("draft_model", str(draft))) == [(f"draft_model {draft}", draft)]
    assert list(named_files("also", [str(draft), "/nothing/here", "relative.gguf"])) == [(f"also {draft}", draft)]
    assert not list(named_files("threads", 4))
