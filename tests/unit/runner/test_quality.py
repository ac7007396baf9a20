"""A text becomes windows by llama.cpp's rule: whole windows of its tokens, each beginning with what the tokenizer puts before a text."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from enginebench.adapter import Unsupported
from enginebench.checkpoints import Vocabulary
from enginebench.dialects.scoring import Question, Scores, Scoring
from enginebench.domain import ClosedLoop, Deployment
from enginebench.domain.quality import DivergenceCheck, PerplexityCheck, QualityCheck, TaskCheck
from enginebench.errors import UserError
from enginebench.records.launch import LaunchRecord
from enginebench.records.quality import QualityRecord, TaskScore
from enginebench.runner.engine import Engine
from enginebench.runner.prompts import PromptSource
from enginebench.runner.quality.assess import assess
from enginebench.runner.quality.due import Due, lacking, unmeasured
from enginebench.runner.quality.windows import text_of, windows_of
from enginebench.runtime.posting import NotAnswered


@dataclass(frozen=True)
class Letters:
    """A tokenizer with a token for each character."""

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:  # the library's signature
        assert not add_special_tokens
        return SimpleNamespace(ids=list(map(ord, text)))

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def vocabulary(*prefix: int) -> Vocabulary:
    return Vocabulary((1,), prefix, cast("Any", Letters()))


def test_windows_are_whole_and_begin_with_bos(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcdefghij")
    check = PerplexityCheck("t.txt", windows=9, window=4)
    assert ["".join(map(chr, ids)) for ids in windows_of(check, vocabulary(), tmp_path).ids] == ["abcd", "efgh"]
    found = windows_of(check, vocabulary(ord("^")), tmp_path)
    assert ["".join(map(chr, ids)) for ids in found.ids] == ["^abc", "^efg"]
    assert (found.rule.begins, found.rule.windows, found.rule.scored, found.first) == ((94,), 2, 1, 3)
    assert found.rule.sha256 == hashlib.sha256(b"abcdefghij").hexdigest()
    sliding = windows_of(PerplexityCheck("t.txt", windows=3, window=4, stride=2, scored=2), vocabulary(), tmp_path)
    assert ["".join(map(chr, ids)) for ids in sliding.ids] == ["abcd", "cdef", "efgh"]


def test_a_text_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abc")
    with pytest.raises(UserError, match="has 3 tokens, fewer than one window of 4"):
        windows_of(PerplexityCheck("t.txt", window=4), vocabulary(), tmp_path)
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text in UTF-8"):
        text_of("t.txt", tmp_path)


def test_the_text_that_ships_is_the_one_of_published_figures() -> None:
    """Its hash is in every record; another text is another experiment."""
    assert hashlib.sha256(text_of("alice", Path()).encode()).hexdigest() == ALICE


ALICE = "a662e3902e02b745585ad57bc592a1f38c90393f50dd87d47fc6a5ab65232818"


@dataclass
class Model(Engine):
    """An engine that gives every token about the same probability, or refuses."""

    refuses: str = ""
    value: float = math.log(0.25)
    asked: list[Question] = field(default_factory=list)

    def score(self, scoring: Scoring, question: Question) -> Scores:
        if self.refuses:
            raise NotAnswered(self.refuses)
        self.asked.append(question)
        count = len(question.ids) - question.first
        own = tuple(self.value - 1e-9 * token for token in question.ids[question.first :])
        return Scores(own, ({7: -0.1, 8: -3.0},) * count if question.top else ())

    def run(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(samples=[SimpleNamespace(outcome="ok", text=None)])


def engine(tmp_path: Path, scores: bool = True, **fields: Any) -> Model:
    def scoring(_: Deployment) -> Scoring:
        if not scores:
            raise Unsupported("it has no numbers")
        return Scoring("by heart", batched=False)

    (tmp_path / "t.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 10)
    launch = LaunchRecord("l", Deployment("e", "m", "none", "c", max_context=64), 0, "")
    prompts = PromptSource(tmp_path, 64, vocabulary())
    return Model(cast("Any", SimpleNamespace(scoring=scoring, title="E")), launch, prompts, None, cast("Any", None), "m", **fields)


CHECK = QualityCheck(PerplexityCheck("t.txt", windows=4, window=32), divergence=DivergenceCheck(2, places=4, prompts=1), under_load=True)


def assessed(its: Model) -> QualityRecord:
    return assess(its, CHECK, ClosedLoop(), lambda _: None)


def test_the_record_has_what_was_asked_and_the_reason_for_what_there_is_not(tmp_path: Path) -> None:
    found = assessed(engine(tmp_path))
    assert found.perplexity is not None
    assert found.perplexity.how == "by heart"
    assert found.perplexity.nats == pytest.approx([15 * math.log(4)] * 4)
    assert [(each.window, each.place) for each in found.predictions][:5] == [(0, 17), (0, 20), (0, 23), (0, 26), (1, 17)]
    assert found.missing == {
        "continuations": "this runtime returns no text",
        "under_load": "by heart: it does not go through the batch, so a load changes nothing",
    }


def test_numbers_that_are_none_are_counted_and_not_averaged(tmp_path: Path) -> None:
    found = assessed(engine(tmp_path, value=math.nan)).perplexity
    assert found is not None
    assert (found.invalid, found.nats) == (4 * 15, ())


@pytest.mark.parametrize("how", ["unsupported", "refused", "context"])
def test_an_engine_that_cannot_costs_no_more_than_its_quality(tmp_path: Path, how: str) -> None:
    its = engine(tmp_path, scores=how != "unsupported", refuses="POST /x returned 500: out of memory" if how == "refused" else "")
    if how == "context":
        its.launch.deployment = Deployment("e", "m", "none", "c", max_context=32)
    found = assessed(its)
    assert found.perplexity is None
    why = {"unsupported": "it has no numbers", "refused": "out of memory", "context": "do not fit max_context 32"}[how]
    assert set(found.missing) == {"perplexity", "under_load", "predictions", "continuations"}
    assert all(why in text for text in found.missing.values())


def test_a_probability_above_one_is_no_probability(tmp_path: Path) -> None:
    """A server that returns the negative of a logarithm, or the probability itself."""
    found = assessed(engine(tmp_path, value=1.2)).perplexity
    assert found is not None
    assert (found.invalid, found.nats) == (4 * 15, ())


def test_an_engine_whose_values_are_not_those_of_the_tokens_is_not_believed(tmp_path: Path) -> None:
    class Constant(Model):
        def score(self, scoring: Scoring, question: Question) -> Scores:
            return Scores((-2.0,) * (len(question.ids) - question.first))

    its = engine(tmp_path)
    found = assessed(Constant(its.adapter, its.launch, its.prompts, None, its.get, "m"))
    assert found.perplexity is None
    assert found.missing["perplexity"].startswith("its log-probabilities are not believed: the value of a token does not depend")


def test_only_what_is_not_measured_yet_is_measured(tmp_path: Path) -> None:
    """A record of a scenario without divergence, then with it, then with other windows."""
    plain = QualityCheck(PerplexityCheck("t.txt", windows=4, window=32))
    its = engine(tmp_path)
    first = assess(its, plain, ClosedLoop(), lambda _: None)
    assert (lacking(plain, first), lacking(plain, None).text) == (Due(text=False, tasks=()), True)
    before = len(its.asked)
    assert assess(its, plain, ClosedLoop(), lambda _: None, first) == first
    assert len(its.asked) == before, "nothing is asked again"
    second = assess(its, CHECK, ClosedLoop(), lambda _: None, first)
    assert len(second.predictions) == 16
    assert not lacking(CHECK, second), "what cannot be measured has its reason"
    wider = replace(plain, perplexity=replace(plain.perplexity, windows=6))
    assert lacking(wider, first).text
    short = replace(plain, perplexity=replace(plain.perplexity, windows=99))
    whole = assess(its, short, ClosedLoop(), lambda _: None)
    assert whole.perplexity is not None
    assert whole.perplexity.rule.windows == 8
    assert not lacking(short, whole), "the text has no more"


def test_tasks_that_are_asked_for_later_are_measured_alone() -> None:
    check = QualityCheck(tasks=(TaskCheck("old"), TaskCheck("group"), TaskCheck("failed"), TaskCheck("new")))
    tasks = (TaskScore("old", "acc", 1.0), TaskScore("part", "acc", 1.0, asked="group"))
    known = QualityRecord(None, tasks=tasks, missing={"perplexity": "it cannot", "failed": "no data"})
    assert lacking(check, known) == Due(text=False, tasks=(TaskCheck("new"),))
    assert unmeasured(check, known, "exited").missing == {"perplexity": "it cannot", "failed": "no data", "new": "exited"}
