"""Natural text without a download: the prose of Python's language reference, which is part of every Python.

The text is the same in every process of one Python version, and differs between versions. Does not know tokenizers or lengths.
"""

import re
from functools import cache
from itertools import groupby
from pydoc_data.topics import topics

_MARKUP = re.compile(r"[\u2018\u2019\u201c\u201d\"*]|\[[\w-]+\]|(?<=\w)\(\)")
"""Markup of the documentation: quotes, emphasis, references and empty calls."""
_BETWEEN_SENTENCES = re.compile(r"(?<=[.?!]) (?=[A-Z])")
_SENTENCE = re.compile(r"[A-Z](?:[A-Za-z0-9,;:'()/-]| (?=[A-Za-z0-9(])|\.(?= ))+[.?!]")
_SHORTEST_SENTENCE, _SHORTEST_PASSAGE = 30, 100
_LETTERS = 0.93
"""Least share of letters and spaces in a sentence; grammar, tables and code have fewer."""


@cache
def passages() -> tuple[str, ...]:
    """About 120,000 characters of plain ASCII prose, as distinct passages of whole sentences, each on one line."""
    found: dict[str, None] = {}  # an ordered set, because topics repeat text
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
