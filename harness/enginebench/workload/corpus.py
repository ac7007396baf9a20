"""Natural text without a download: the prose of Python's own language reference, which ships with every Python.

The same in every process of one Python version; another version has another text. Knows no tokenizer and no length.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby
from pydoc_data.topics import topics

_MARKUP = re.compile(r"[\u2018\u2019\u201c\u201d\"*]|\[[\w-]+\]|(?<=\w)\(\)")
"""Quotes, emphasis, references and empty calls: what the documentation puts around words."""
_BETWEEN_SENTENCES = re.compile(r"(?<=[.?!]) (?=[A-Z])")
_SENTENCE = re.compile(r"[A-Z](?:[A-Za-z0-9,;:'()/-]| (?=[A-Za-z0-9(])|\.(?= ))+[.?!]")
_SHORTEST_SENTENCE, _SHORTEST_PASSAGE = 30, 100
_LETTERS = 0.93
"""Least share of letters and spaces in a sentence; grammar, tables and code have fewer."""


@cache
def passages() -> tuple[str, ...]:
    """About 120,000 characters of plain ASCII prose, as passages of whole sentences, each on one line and no two alike."""
    found: dict[str, None] = {}  # an ordered set: the topics repeat each other
    for _, topic in sorted(topics.items()):
        for block in re.split(r"\n\s*\n", topic):
            line = " ".join(_MARKUP.sub("", block.replace("—", " - ")).split())
            for good, sentences in groupby(_BETWEEN_SENTENCES.split(line), key=_is_prose):
                passage = " ".join(sentences)
                if good and len(passage) >= _SHORTEST_PASSAGE:
                    found[passage] = None
    return tuple(found)


def _is_prose(sentence: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return len(sentence) >= _SHORTEST_SENTENCE and letters / len(sentence) > _LETTERS and bool(_SENTENCE.fullmatch(sentence))
