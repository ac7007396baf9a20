"""What requests hold besides their prompts: tools, form of the answer, images of an exact size, and which are aborted."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.vocabulary import Vocabulary, is_plain
from enginebench.domain import ClosedLoop, Load
from enginebench.errors import UserError
from enginebench.workload import check, form_of, make_prompts
from enginebench.workload.images import png

PLAIN = tuple(i for i, token in enumerate(word_tokenizer().tokens) if token not in word_tokenizer().control and is_plain(token))
KNOWN = Vocabulary(PLAIN, (), word_tokenizer().tokenizer())
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def load_of(**fields: Any) -> Load:
    return ClosedLoop(**{"api": "chat", "requests": 20} | fields)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 5), (512, 512), (100, 333)])
def test_an_image_is_a_png_of_exactly_its_size(width: int, height: int) -> None:
    data = png(width, height, 0, "a")
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + body),)
        chunks[name] = body
        at += 12 + length
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (width, height, 8, 2, 0, 0, 0)
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (3 * width + 1)
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert len(data) < 100 + width * height // 16
    assert data == png(width, height, 0, "a") != png(width, height, 1, "a")


def test_every_request_has_images_of_its_own() -> None:
    prompts = make_prompts(None, load_of(images=2, image_size="64x32"), 5, salt="x")
    images = [image for prompt in prompts for image in prompt.images]
    assert len(images) == len(set(images)) == 10
    assert all(struct.unpack(">II", base64.b64decode(image)[16:24]) == (64, 32) for image in images)
    assert make_prompts(None, load_of(), 1, salt="x")[0].images == ()


def test_a_share_of_the_requests_is_aborted_the_same_ones_each_time() -> None:
    load = load_of(cancel_share=0.25, cancel_s=1.5, requests=2000)
    aborted = [prompt.abort_s for prompt in make_prompts(None, load, 2000, salt="x")]
    assert set(aborted) == {0.0, 1.5}
    assert sum(map(bool, aborted)) == pytest.approx(500, abs=60)
    assert aborted[:50] == [prompt.abort_s for prompt in make_prompts(None, load, 50, salt="another engine")]
    assert not any(prompt.abort_s for prompt in make_prompts(None, load_of(), 50, salt="x"))


def test_a_system_message_has_its_tokens_and_the_prompt_the_rest() -> None:
    load = load_of(system_tokens=30, input_tokens=100, prefix_cache="allowed", prompts="text")
    prompts = make_prompts(KNOWN, load, 4, salt="x")
    assert KNOWN.tokenizer is not None
    (system,) = {prompt.system for prompt in prompts}
    assert system is not None
    assert len(KNOWN.tokenizer.encode(system, add_special_tokens=False).ids) == 30
    assert [(prompt.tokens, len(prompt.ids or ())) for prompt in prompts] == [(100, 70)] * 4
    assert len({prompt.text for prompt in prompts}) == 4


def test_tools_and_schemas_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([TOOL]))
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    (tmp_path / "whole.json").write_text('{"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}')
    form = form_of(load_of(tools="tools.json", tool_choice="required", response_format="schema.json"), tmp_path)
    assert (form.tools, form.tool_choice, form.schema) == ((TOOL,), "required", {"type": "object"})
    assert form_of(load_of(response_format="whole.json"), tmp_path).schema == {"type": "array"}
    assert form_of(load_of(response_format="json_object"), tmp_path).response_format == {"type": "json_object"}
    assert [its["name"] for its in form_of(load_of(tools="3"), tmp_path).functions] == ["search_0", "search_1", "search_2"]
    assert not form_of(load_of(), tmp_path)


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"tools": "none.json"}, "tools", "there is no file"),
        ({"tools": "0"}, "tools", "0 tools cannot be sent"),
        ({"tools": "999"}, "tools", "999 tools cannot be sent"),
        ({"tools": "object.json"}, "tools", "this is no list of tools"),
        ({"tools": "broken.json"}, None, "invalid JSON"),
        ({"response_format": "list.json"}, "response_format", "this is no JSON schema"),
        ({"response_format": "json_object", "api": "messages"}, "response_format", "answers of a schema"),
        ({"tools": "2", "api": "completions"}, "tools", "raw completions have no `tools`"),
        ({"images": 1, "api": "completions"}, "images", "raw completions have no `images`"),
        ({"images": 1, "image_size": "64"}, "image_size", "invalid image size '64'"),
        ({"images": 1, "image_size": "0x9"}, "image_size", "invalid image size '0x9'"),
        ({"system_tokens": 10}, "system_tokens", "fills a prefix cache"),
        ({"system_tokens": 200, "prefix_cache": "allowed"}, "system_tokens", "leaves nothing of a prompt of 128"),
    ],
)
def test_what_requests_cannot_hold_is_refused_with_what_they_can(
    tmp_path: Path, fields: dict[str, Any], key: str | None, message: str
) -> None:
    for name, text in (("object.json", "{}"), ("list.json", "[]"), ("broken.json", '{"a":\n oops}')):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        check(load_of(**fields), tmp_path)
    assert caught.value.key == key
    assert caught.value.advice
    if message == "invalid JSON":
        assert caught.value.line == 2
