"""Byte-level BPE tokenizers as plain data, and the tokenizer of the random checkpoints.

A tokenizer is its tokens, merges, control tokens and the name of its pre-tokenizer (llama.cpp's `tokenizer.ggml.pre`), so the same object
becomes GGUF metadata or a Hugging Face tokenizer.json. Does not support SentencePiece or WordPiece.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from enginebench.checkpoints.words import WORDS
from enginebench.domain import JSON

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (_CL100K.format(digits=r"\p{N}"),),
    "llama-bpe": (_CL100K.format(digits=r"\p{N}{1,3}"),),
}
"""Regular expressions that split text before BPE, applied in order, by value of `tokenizer.ggml.pre`.
Source: llama.cpp src/llama-vocab.cpp."""

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY_SIZE = 1024

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class ByteLevelBPE:
    tokens: tuple[str, ...]
    """By id, in the byte alphabet."""
    merges: tuple[str, ...]
    """'left right', best first."""
    control: frozenset[str] = field(default_factory=frozenset)
    """Tokens that are not text."""
    pre: str = "qwen2"
    ignore_merges: bool = False
    """A piece that is a token is not built from merges (Llama 3)."""

    def tokenizer(self) -> Tokenizer:
        """A tokenizer of the `tokenizers` library. KeyError if the pre-tokenizer is not in PRE_TOKENIZERS."""
        from tokenizers import Tokenizer  # imported late: not needed to write a checkpoint

        return Tokenizer.from_str(json.dumps(self.to_json()))

    def to_json(self) -> dict[str, JSON]:
        splits: list[JSON] = [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} for regex in PRE_TOKENIZERS[self.pre]
        ]
        byte_level: dict[str, JSON] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        flags: dict[str, JSON] = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        controls = [(i, token) for i, token in enumerate(self.tokens) if token in self.control]
        added: list[JSON] = [{"id": i, "content": token, "special": True, **flags} for i, token in controls]
        unused: dict[str, JSON] = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
        model: dict[str, JSON] = {
            "type": "BPE", **unused, "fuse_unk": False, "byte_fallback": False, "ignore_merges": self.ignore_merges,
            "vocab": {token: i for i, token in enumerate(self.tokens)}, "merges": list(self.merges),
        }  # fmt: skip
        return {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]}, "post_processor": None, "decoder": byte_level,
            "model": model,
        }  # fmt: skip

    def id_of(self, token: str) -> int:
        return self.tokens.index(token)


@cache
def byte_alphabet() -> tuple[str, ...]:
    """GPT-2's printable character for each byte 0..255: itself if visible, else the next letter from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in visible else next(hidden)) for byte in range(256))


@cache
def word_tokenizer() -> ByteLevelBPE:
    """The tokenizer of the random checkpoints: 256 bytes, the prefixes of common words, three control tokens.

    Every merge appends one letter to a token that begins with a space. So a word is encoded as its longest known prefix and single letters,
    merges do not compete, and every token encodes to itself.
    """
    alphabet = byte_alphabet()
    tokens = dict.fromkeys(alphabet)  # a dict as an ordered set
    merges: list[str] = []
    controls = (END_OF_TEXT, TURN_START, TURN_END)
    for word in WORDS:
        grown = alphabet[ord(" ")]
        for letter in word:
            if grown + letter not in tokens and len(tokens) < VOCABULARY_SIZE - len(controls):
                tokens[grown + letter] = None
                merges.append(f"{grown} {letter}")
            grown += letter
    return ByteLevelBPE((*tokens, *controls), tuple(merges), frozenset(controls))
