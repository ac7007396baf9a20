"""A text as windows of tokens, by a rule that every engine follows exactly. Pure but for reading the file.

The text is encoded as a whole, after the tokens that the model's tokenizer puts before a text (BOS). Window i has the tokens from
i * stride on, with its first tokens replaced by those beginnings, as llama.cpp's perplexity tool does it; of each window the last `scored`
tokens count, each given all tokens before it in the window.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from enginebench.checkpoints import Vocabulary
from enginebench.domain.quality import ALICE, HUB, PerplexityCheck
from enginebench.errors import UserError
from enginebench.records.quality import Rule
from enginebench.workload.texts import natural


@dataclass(frozen=True)
class Windows:
    rule: Rule
    ids: tuple[tuple[int, ...], ...]
    """Of each window."""

    @property
    def first(self) -> int:
        """Index of the first token of a window that is scored."""
        return self.rule.window - self.rule.scored


def text_of(name: str, base: Path) -> str:
    """The text with this name. UserError for a file that is not one."""
    if name == ALICE:
        return natural()
    file = _from_hub(name) if name.startswith(HUB) else base / Path(name).expanduser()
    try:
        return _rows(file) if file.suffix == ".parquet" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"is not a text in UTF-8 ({error.reason} at byte {error.start})", file=file) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", file=file) from None


def _from_hub(name: str) -> Path:
    """The file of a data set, from the hub or its cache on this machine. UserError if it cannot be had."""
    from huggingface_hub import hf_hub_download

    owner, repository, *file = name.removeprefix(HUB).split("/")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", "/".join(file), repo_type="dataset"))
    except Exception as error:  # noqa: BLE001  # the library raises errors of several others
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{name} cannot be fetched from the hub: {reason}", advice="fetch the file, and write its path") from None


def _rows(file: Path) -> str:
    """The column `text` of a data set, its rows separated by an empty line."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file, columns=["text"]).column("text").to_pylist()
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise UserError(f"has no column `text`: {str(error).splitlines()[0]}", file=file) from None
    return "\n\n".join(str(row) for row in rows)


def windows_of(check: PerplexityCheck, vocabulary: Vocabulary, base: Path) -> Windows:
    """The windows of the check's text. UserError for a text shorter than one window; ValueError without a tokenizer."""
    if vocabulary.tokenizer is None:
        raise ValueError("the tokenizer of this checkpoint cannot be read here, so the text has no token ids")
    text = text_of(check.text, base)
    begins = tuple(vocabulary.prefix_ids)
    ids = (*begins, *vocabulary.tokenizer.encode(text, add_special_tokens=False).ids)
    starts = range(0, len(ids) - check.window + 1, check.step)[: check.windows]
    if not starts:
        raise UserError(
            f"the text '{check.text}' has {len(ids)} tokens, fewer than one window of {check.window}", key="quality.perplexity.window",
            advice="write a smaller window, or a longer text",
        )  # fmt: skip
    found = tuple((*begins, *ids[start + len(begins) : start + check.window]) for start in starts)
    digest = hashlib.sha256(json.dumps(found, separators=(",", ":")).encode()).hexdigest()
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Windows(Rule(check.text, sha256, digest, len(found), check.window, check.step, check.last, begins), found)
