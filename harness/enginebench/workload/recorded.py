"""Prompts from a data set: complete, or cut to a length; never padded.

A text that is too short, or that does not have exactly the wanted number of tokens when it is cut, is omitted. Does not know
file formats or engines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from enginebench.checkpoints.vocabulary import Vocabulary
from enginebench.dialects import Form
from enginebench.domain import Load
from enginebench.errors import UserError
from enginebench.workload.datasets import Record, Records, Turn, read_records
from enginebench.workload.draws import order, stream
from enginebench.workload.lengths import Lengths
from enginebench.workload.outlines import due_list
from enginebench.workload.prompts import Prompt, Prompts, TextScale


def recorded_prompts(
    vocabulary: Vocabulary | None, load: Load, count: int, *, salt: str, scale: TextScale, base: Path, limit: int | None
) -> list[Prompt]:
    """The first `count` requests of a load with a data set, its records in an order that depends on (load.seed, salt).

    limit: most tokens of a prompt with its answer (of a conversation, all turns together); longer ones are omitted.

    UserError if the data set has fewer than `count` and prefix_cache is 'cold', because a prompt that is sent twice would be cached.
    A closed loop with a duration asks for more than it sends, so it gets as many as there are.
    """
    records = read_records(load.prompts, base)
    lengths, due = Lengths.of(load).draw(load.seed, count), due_list(load, count)
    ruler, bits = _Ruler(vocabulary, scale), stream(load.seed, f"{salt}/records")
    found, conversation, unusable = Prompts(), 0, 0
    while len(found) < count:
        before = len(found)
        for place in order(len(records), bits).tolist():
            asked = lengths[len(found) : len(found) + load.turns]
            if not asked:
                break
            turns = list(_conversation(records[place], asked, ruler, limit, chat=load.templated))
            unusable += not turns
            for turn, (sized, output) in enumerate(turns):
                when, group = due[conversation] if turn == 0 else None, conversation if load.turns > 1 else -1
                found.append(_prompt(records[place][turn], sized, output, when, group, turn, templated=load.templated))
            conversation += bool(turns)
        if len(found) < count and (len(found) == before or load.prefix_cache == "cold"):
            if found and load.duration_s is not None and not load.open_loop:
                break
            raise _too_few(load, count, len(found), limit)
    found.notes = tuple(_notes(load, records, unusable))
    return found


def _prompt(
    told: Turn, sized: _Sized, output: int, due_s: float | None, conversation: int, turn: int, *, templated: bool
) -> Prompt:  # fmt: skip
    """The request of a turn, with what only a templated route can be sent."""
    if not templated:
        return Prompt(*sized, output, due_s, conversation, turn)
    fields = json.loads(told.form) if told.form else {}
    form = Form(tuple(fields.get("tools", ())), fields.get("tool_choice", "auto"), fields.get("response_format")) if fields else None
    ids, text, tokens = sized
    ids = None if told.messages or form is not None else ids  # how a template writes several messages or tools is not known
    return Prompt(ids, text, tokens, output, due_s, conversation, turn, told.system, messages=told.messages, form=form)


def _notes(load: Load, records: Records, unusable: int) -> Iterator[str]:
    """What of the data set is not sent."""
    name = load.prompts
    if not load.templated and (count := sum(any(turn.form for turn in record) for record in records)):
        yield f"{name}: the tools of {count:,} records are not sent, because raw completions have none"
    lost = ", ".join(f"{count:,} {kind}" for kind, count in records.left_out.items())
    if lost:
        yield f"{name} has {len(records):,} records with a prompt; left out: {lost}"
    if unusable:
        yield f"{name}: {unusable:,} records were passed over, because they do not have the length that the load asks for"


_Sized: TypeAlias = tuple[tuple[int, ...] | None, str, int]
"""ids, text, tokens: the first fields of a Prompt."""


def _conversation(
    record: Record, asked: Sequence[tuple[int | None, int | None]], ruler: _Ruler, limit: int | None, *, chat: bool
) -> Iterator[tuple[_Sized, int]]:
    """The turns of a record up to the first that does not have the wanted lengths or exceeds the limit."""
    total = 0
    for place, (turn, (wanted, output)) in enumerate(zip(record, asked, strict=False)):
        answer = ruler.answer(turn) if output is None else output
        system = ruler.count(turn.system) if turn.system and chat else 0  # a message of its own
        text = f"{turn.system}\n\n{turn.text}" if turn.system and not chat else turn.text
        sized = ruler.prompt(text, wanted and wanted - system, first=place == 0) if wanted is None or wanted > system else None
        if answer is None or sized is None:
            return
        total += sized[2] + system + answer
        if limit is not None and total > limit:
            return
        yield (*sized[:2], sized[2] + system), answer


def _too_few(load: Load, count: int, found: int, limit: int | None) -> UserError:
    length = "" if load.input_tokens == "data" and load.lengths is None else f" of {load.lengths or load.input_tokens} tokens"
    within = f" within {limit} tokens" if limit is not None else ""
    advice = "ask for fewer requests or shorter ones, or write 'input_tokens: data'"
    if not found and load.output_tokens == "data":
        advice = "if it has no answers, write 'output_tokens'; else " + advice
    if found:
        advice += "; with 'prefix_cache: allowed' they are sent again"
    return UserError(f"{load.prompts} has {found} requests{length}{within}, and {count} are wanted", key="prompts", advice=advice)


@dataclass(frozen=True)
class _Ruler:
    """Measures and cuts text, by the tokenizer if it is known, otherwise by counting words."""

    vocabulary: Vocabulary | None
    scale: TextScale

    def answer(self, turn: Turn) -> int | None:
        """Tokens of the recorded answer, at least 1; None if no answer is recorded."""
        if turn.answer_tokens is not None or turn.answer is None:
            return turn.answer_tokens
        return self.count(turn.answer)

    def count(self, text: str) -> int:
        """Tokens of a text, at least 1."""
        if self.vocabulary is None or self.vocabulary.tokenizer is None:
            return self.scale.tokens(len(text.split()))
        return max(1, len(self.vocabulary.tokenizer.encode(text, add_special_tokens=False).ids))

    def prompt(self, text: str, wanted: int | None, *, first: bool) -> _Sized | None:
        """The complete text, or its beginning of exactly `wanted` tokens; None if it has no such beginning.

        first: the prompt begins a conversation, so the engine adds its prefix.
        """
        if self.vocabulary is None or self.vocabulary.tokenizer is None:
            return self._by_words(text, wanted)
        prefix = self.vocabulary.prefix_ids if first else ()
        overhead = round(self.scale.overhead) if first else 0
        encoding = self.vocabulary.tokenizer.encode(text, add_special_tokens=False)
        if wanted is not None:
            rest = wanted - len(prefix) - overhead
            if not 0 < rest <= len(encoding.ids):
                return None
            text = text[: encoding.offsets[rest - 1][1]]
            encoding = self.vocabulary.tokenizer.encode(text, add_special_tokens=False)
            if len(encoding.ids) != rest:  # a cut word may be split differently
                return None
        ids = (*prefix, *encoding.ids)
        return ids, text, len(ids) + overhead

    def _by_words(self, text: str, wanted: int | None) -> _Sized | None:
        words = text.split()
        if wanted is None:
            return None, text, self.scale.tokens(len(words))
        fitting = self.scale.words(wanted)
        return (None, " ".join(words[:fitting]), wanted) if len(words) >= fitting else None
