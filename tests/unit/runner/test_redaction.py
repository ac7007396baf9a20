"""What a server says is stored without the keys it was told."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from enginebench.adapter import Reply
from enginebench.domain import Deployment, Sample
from enginebench.runner.redaction import mask, redact, redacted, redacted_get, secrets_of

KEY = 'sk-"very/secret+key=='


@pytest.mark.parametrize("form", [KEY, json.dumps(KEY)[1:-1], quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()])
def test_every_form_of_a_key_is_replaced_wherever_it_stands(form: str) -> None:
    assert redacted(f"{form} Bearer {form}, {form}", [KEY]) == "*** Bearer ***, ***"


def test_a_key_that_an_excerpt_cuts_off_is_replaced() -> None:
    text = f"invalid key {KEY}"
    for length in range(len("invalid key ") + 6, len(text)):
        assert redacted(text[:length], [KEY]) == "invalid key ***"
        assert redacted(text[:length] + "…", [KEY]) == "invalid key ***"


def test_other_text_stays_as_it_is() -> None:
    text = "error: 'sk-other' is not known…\n\ttry again."
    assert redacted(text, [KEY]) == text


def test_a_log_is_masked_in_place(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(f"key {KEY}, again {quote(KEY, safe='')}, ä {KEY[:-1]}.")
    with log.open("a") as still_open:
        mask(log, [KEY])
        still_open.write("\nnext line")
    assert log.read_text() == f"key {'*' * len(KEY)}, again {'*' * len(quote(KEY, safe=''))}, ä {KEY[:-1]}.\nnext line"
    for name, content in (("empty", b""), ("bytes", b"\xff\x00")):
        (tmp_path / name).write_bytes(content)
        mask(tmp_path / name, [KEY])
        assert (tmp_path / name).read_bytes() == content
    mask(tmp_path / "missing", [KEY])


def test_all_texts_of_a_sample_are_redacted() -> None:
    sample = Sample(
        0, 1, 1, error=f"no {KEY}", finish_reason=KEY, text=f"You said {KEY}!", server_timings={KEY: 1.0}, end_marks=frozenset([KEY])
    )
    redact([sample], (KEY,))
    assert KEY not in repr(sample)
    assert (sample.error, sample.text, sample.server_timings) == ("no ***", "You said ***!", {"***": 1.0})


def test_replies_are_redacted_and_bytes_that_are_no_text_stay() -> None:
    get = redacted_get(lambda _: Reply(200, b"\xff\x00" + KEY.encode()), (KEY,))
    assert get("/v1/models").body == b"\xff\x00***"


def test_secrets_are_the_key_and_the_tokens_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MY_KEY": KEY, "HF_TOKEN": "hf_0123456789", "TOKENIZERS_PARALLELISM": "false", "X_TOKEN": "ab"}.items():
        monkeypatch.setenv(name, value)
    found = secrets_of(Deployment("openai", "m", "none", "m", runtime="attach", url="http://h", api_key_env="MY_KEY"))
    assert {KEY, "hf_0123456789"} <= set(found)
    assert not {"false", "ab", ""} & set(found)
