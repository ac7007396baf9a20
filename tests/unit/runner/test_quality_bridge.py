"""What lm-evaluation-harness gets in place of an API with log-probabilities of a prompt, read as it reads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from enginebench.dialects.scoring import Question, Scores, Scoring
from enginebench.runner.quality.bridge import Bridge
from enginebench.runner.quality.tasks import _scores
from enginebench.runtime.posting import NotAnswered


def score(_: Scoring, question: Question) -> Scores:
    """Even tokens are the most probable ones in their place."""
    own = tuple(-float(token) for token in question.ids[1:])
    tops = tuple({token: -float(token)} if token % 2 == 0 else {99: -0.5} for token in question.ids[1:])
    return Scores(own, tops)


def bridge(why_not: str = "") -> Bridge:
    engine = cast("Any", SimpleNamespace(score=score, served_name="m"))
    return Bridge(engine, None if why_not else Scoring("by heart"), why_not)


def read(choice: dict[str, Any], context: int) -> tuple[float, bool]:
    """(log-likelihood of the continuation, whether it is the greedy one), by lm-evaluation-harness' rule for this API."""
    its = choice["logprobs"]
    own, tops = its["token_logprobs"][context:-1], its["top_logprobs"][context:-1]
    return sum(own), all(value == max(top.values()) for value, top in zip(own, tops, strict=True))


def test_a_continuation_has_the_sum_of_its_tokens_and_is_greedy_if_all_are() -> None:
    body = {"prompt": [[7, 2, 4], [7, 2, 3]], "echo": True, "logprobs": 1, "max_tokens": 1}
    first, second = cast("Any", bridge().answer("/v1/completions", body))["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert len(first["logprobs"]["token_logprobs"]) == 4
    assert read(first, 1) == (-6.0, True)
    assert read(second, 1) == (-5.0, False)
    assert read(second, 2) == (-3.0, False)


def test_what_cannot_be_asked_has_its_reason() -> None:
    with pytest.raises(NotAnswered, match="Ollama does not"):
        bridge("Ollama does not").answer("/v1/completions", {"prompt": [[1, 2]], "echo": True})
    with pytest.raises(ValueError, match="by their token ids"):
        bridge().answer("/v1/completions", {"prompt": "text", "echo": True})
    with pytest.raises(NotAnswered, match="in-process"):
        bridge().answer("/v1/completions", {"prompt": "text", "max_tokens": 8})


def test_scores_are_those_of_the_report_and_single_answers_only_where_they_are_right_or_wrong() -> None:
    samples = [{"doc_hash": "a", "filter": "none", "acc": 1.0, "bits": 0.7}, {"doc_hash": "b", "filter": "none", "acc": 0.0, "bits": 1.2}]
    values = {"alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.5, "bits,none": 0.95, "bits_stderr,none": "N/A", "sample_len": 2}
    acc, bits = _scores({"results": {"t": values}, "samples": {"t": samples}})
    assert (acc.metric, acc.value, acc.stderr, acc.documents, acc.right) == ("acc", 0.5, 0.5, ("a", "b"), (1, 0))
    assert (bits.metric, bits.value, bits.stderr, bits.right) == ("bits", 0.95, None, ())
