"""Capsules that are meant to do harm, or are broken: one sentence, exit code 2, and nothing outside the cache is written."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.cli import main
from enginebench.errors import UserError
from enginebench.records import capsule as container
from enginebench.records.capsule import Capsule, write_capsule

GOOD = {"run/run.json": b"{}", "run/logs/a.log": b"log\n" * 100, "run/samples/b.parquet": bytes(range(256)) * 8}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))


def built(target: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipFile], None], **manifest: object) -> Path:
    """A zip with a fitting manifest, and with what `change` adds."""
    files = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in members.items()}
    text = json.dumps({"schema": 1, "enginebench": "0.1.0", "about": {}, "files": files, **manifest})
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("manifest.json", text)
        for name, data in members.items():
            out.writestr(name, data)
        change(out)
    return target


def _named(
    name: str, mode: int = 0o644 | stat.S_IFREG, data: bytes = b"x", method: int = zipfile.ZIP_DEFLATED
) -> Callable[[zipfile.ZipFile], None]:
    def add(out: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type, info.create_system = mode << 16, method, 3
        out.writestr(info, data)

    return add


HOSTILE: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "zip-slip": (_named("run/../../../evil"), "no safe file name"),
    "zip-slip at the start": (_named("../evil"), "no safe file name"),
    "absolute": (_named("/root/evil"), "no safe file name"),
    "drive": (_named("C:/evil"), "no safe file name"),
    "backslash": (_named("run\\..\\evil"), "no safe file name"),
    "hidden": (_named("run/.lock"), "no safe file name"),
    "empty part": (_named("run//evil"), "no safe file name"),
    "folder": (_named("run/evil/", 0o755 | stat.S_IFDIR, b""), "link or no regular file"),
    "newline": (_named("run/a\nb"), "no safe file name"),
    "symlink": (_named("run/evil", 0o777 | stat.S_IFLNK, b"/etc/passwd"), "is a link"),
    "device": (_named("run/evil", 0o666 | stat.S_IFCHR, b""), "is a link or no regular file"),
    "case twice": (_named("RUN/run.json"), "is in it twice"),
    "bomb": (_named("run/bomb", data=bytes(50 << 20)), "unpacks to more than 100 times its size"),
    "lzma": (_named("run/evil", method=zipfile.ZIP_LZMA), "compressed in a way"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_dangerous_members_are_refused(attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = HOSTILE[attack]
    file = built(tmp_path / "x.ebz", GOOD, change)
    refused(file, message, capsys)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(built(tmp_path / "x.ebz", GOOD, _named("run/run.json")), "'run/run.json' is in it twice", capsys)


def test_encrypted_members_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = built(tmp_path / "x.ebz", GOOD, lambda _: None)
    data = bytearray(file.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    file.write_bytes(bytes(data))
    refused(file, "is encrypted", capsys)


def test_the_total_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(container, "MOST_BYTES", 1000)
    refused(built(tmp_path / "x.ebz", GOOD, lambda _: None), "unpacks to more than", capsys)


def test_the_number_of_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(container, "MOST_FILES", 2)
    refused(built(tmp_path / "x.ebz", GOOD, lambda _: None), "more than 2 files", capsys)


def test_overlapping_members_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A zip whose entries share their bytes: small, without a suspicious ratio of any of them."""
    noise = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(4096))
    file = built(tmp_path / "x.ebz", {"run/a": noise}, lambda _: None)
    data = file.read_bytes()
    start, end = data.find(b"PK\x01\x02", 0), data.find(b"PK\x05\x06")
    entry = data[data.find(b"PK\x01\x02", start + 4) : end]
    again = b"".join(entry.replace(b"run/a", f"run/{c}".encode()) for c in "bcdefgh")
    central = data[start:end] + again
    tail = bytearray(data[end:])
    count = 2 + 7
    tail[8:10] = tail[10:12] = count.to_bytes(2, "little")
    tail[12:16] = len(central).to_bytes(4, "little")
    file.write_bytes(data[:start] + central + bytes(tail))
    refused(file, "overlap", capsys)


@pytest.mark.parametrize("schema", [2, 99])
def test_newer_schemas_are_refused(schema: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        built(tmp_path / "x.ebz", GOOD, lambda _: None, schema=schema),
        f"has schema {schema}, this enginebench reads capsules up to 1",
        capsys,
    )


@pytest.mark.parametrize("schema", [None, 0, "1", True])
def test_a_manifest_without_a_schema_is_refused(schema: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(built(tmp_path / "x.ebz", GOOD, lambda _: None, schema=schema), "has no schema version", capsys)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"files": {"../evil": {"sha256": "0", "size": 1}}}, "names the unsafe file '../evil'"),
        ({"files": {"run/a": {"sha256": "0"}}}, "its manifest.json is damaged: files.run/a.size"),
        ({"files": []}, "its manifest.json is damaged: files"),
    ],
)
def test_bad_manifests_are_refused(manifest: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(built(tmp_path / "x.ebz", GOOD, lambda _: None, **manifest), message, capsys)


def test_truncated_capsules_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.ebz"
    write_capsule(whole, "0.1.0", {}, dict(GOOD))
    data = whole.read_bytes()
    for length in (0, 1, 4, len(data) // 4, len(data) // 2, len(data) - 30, len(data) - 1):
        file = tmp_path / "x.ebz"
        file.write_bytes(data[:length])
        refused(file, "truncated or damaged", capsys)


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.ebz").write_text('{"no": "zip"}')
    refused(tmp_path / "a.ebz", "is not a whole capsule", capsys)
    with zipfile.ZipFile(tmp_path / "b.ebz", "w") as out:
        out.writestr("hello.txt", "hello")
    refused(tmp_path / "b.ebz", "it has no manifest.json", capsys)


def test_a_member_cannot_be_larger_than_the_manifest_says(tmp_path: Path) -> None:
    files = {"run/a": {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}}
    file = built(tmp_path / "x.ebz", {"run/a": b"x" * 5000}, lambda _: None, files=files)
    assert Capsule(file).unpack(tmp_path / "out") == {"run/a": "has more than the 1 bytes of the manifest"}
    assert not (tmp_path / "out" / "run" / "a").exists()


def test_files_beside_the_manifest_are_named(tmp_path: Path) -> None:
    file = built(tmp_path / "x.ebz", GOOD, _named("run/extra"))
    assert Capsule(file).unlisted == ("run/extra",)
    assert Capsule(file).unpack(tmp_path / "out") == {"run/extra": "is not in the manifest"}


def test_what_compresses_like_a_bomb_is_stored_and_opens(tmp_path: Path) -> None:
    log = b"cannot allocate memory\n" * 200_000
    file = tmp_path / "x.ebz"
    write_capsule(file, "0.1.0", {}, {"run/logs/a.log": log})
    assert not Capsule(file).unpack(tmp_path / "out")
    assert (tmp_path / "out" / "run" / "logs" / "a.log").read_bytes() == log


def refused(file: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`bench verify`, `report` and `rerun` say the message in one sentence and end with 2."""
    with pytest.raises(UserError, match=re.escape(message)):
        Capsule(file)
    for verb in ("verify", "report", "rerun"):
        with pytest.raises(SystemExit) as ended:
            main([verb, str(file)])
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert message in said
        assert "Traceback" not in said
