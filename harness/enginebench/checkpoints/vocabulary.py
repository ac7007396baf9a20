"""Reads the vocabulary of a local checkpoint for prompts: its plain text tokens and, if possible, its tokenizer.

The tokenizer of a GGUF file can be rebuilt if it is byte-level BPE with a known pre-tokenizer. Without one, prompts are token ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from enginebench.checkpoints.gguf_metadata import Value, read_metadata
from enginebench.checkpoints.tokenizer import PRE_TOKENIZERS, ByteLevelBPE
from enginebench.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "starcoder": "smollm", "refact": "smollm"}
"""Values of `tokenizer.ggml.pre` that are equivalent to one in PRE_TOKENIZERS."""
_NORMAL, _CONTROL = 1, 3
"""llama.cpp's token types; the others are unknown, user-defined, unused and byte tokens."""
_BYTE_FALLBACK = re.compile(r"<0x[0-9A-F]{2}>")
_SPACES = str.maketrans("Ġ▁", "  ")
"""The spaces of byte-level BPE and SentencePiece."""
_KEYS = (
    "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The vocabulary of one checkpoint. Compared by identity, because tokenizers cannot be compared."""

    plain_ids: tuple[int, ...]
    """Tokens of printable ASCII text, ascending (no control, byte, unused or unknown tokens)."""
    prefix_ids: tuple[int, ...] = ()
    """Tokens that the engine adds before a text prompt, usually none or a BOS. A prompt of ids must begin with them to be the same."""
    tokenizer: Tokenizer | None = None
    """None if only the engine can tokenize."""


def read_vocabulary(checkpoint: Path) -> Vocabulary:
    """The vocabulary of a GGUF file or a Hugging Face folder. UserError if it has none."""
    vocabulary = _from_folder(checkpoint) if checkpoint.is_dir() else _from_gguf(checkpoint)
    if not vocabulary.plain_ids:
        raise UserError("the vocabulary has no plain text tokens", file=checkpoint)
    return vocabulary


def is_plain(token: str) -> bool:
    text = token.translate(_SPACES)
    return bool(text) and text.isascii() and text.isprintable() and not _BYTE_FALLBACK.fullmatch(text)


def _from_folder(folder: Path) -> Vocabulary:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("no tokenizer.json", file=folder, advice="prompts need the tokenizer of the checkpoint")
    from tokenizers import Tokenizer  # imported late: not needed without a local checkpoint

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  # the library raises plain Exception
        advice = "the file may be incomplete, or newer than the package tokenizers"
        raise UserError(f"cannot read this tokenizer: {error}", file=file, advice=advice) from None
    added = tokenizer.get_added_tokens_decoder()  # special tokens and other additions that are not learned text
    plain = sorted(i for token, i in tokenizer.get_vocab().items() if i not in added and is_plain(token))
    bare, full = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    prefix = tuple(full[: full.index(bare[0])]) if bare and bare[0] in full else ()
    return Vocabulary(tuple(plain), prefix, tokenizer)


def _from_gguf(file: Path) -> Vocabulary:
    found = read_metadata(file, _KEYS)
    tokens = cast("list[str]", found.get("tokenizer.ggml.tokens", []))
    kinds = cast("list[int]", found.get("tokenizer.ggml.token_type")) or [_NORMAL] * len(tokens)
    plain = tuple(i for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == _NORMAL and is_plain(token))
    by_default = found.get("tokenizer.ggml.model") == "llama" or _pre(found) == "llama-bpe"  # of llama.cpp, for files without the key
    adds_bos = found.get("tokenizer.ggml.add_bos_token", by_default)
    bos = found.get("tokenizer.ggml.bos_token_id")
    prefix = (bos,) if adds_bos and isinstance(bos, int) else ()
    controls = (token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL)
    return Vocabulary(plain, prefix, _gguf_tokenizer(found, tokens, controls))


def _pre(found: dict[str, Value]) -> str:
    name = str(found.get("tokenizer.ggml.pre", ""))
    return _ALIASES.get(name, name)


def _gguf_tokenizer(found: dict[str, Value], tokens: list[str], controls: Iterable[str]) -> Tokenizer | None:
    merges, pre = found.get("tokenizer.ggml.merges"), _pre(found)
    if found.get("tokenizer.ggml.model") != "gpt2" or pre not in PRE_TOKENIZERS or not merges:
        return None
    bpe = ByteLevelBPE(tuple(tokens), tuple(cast("list[str]", merges)), frozenset(controls), pre, ignore_merges=pre == "llama-bpe")
    return bpe.tokenizer()
