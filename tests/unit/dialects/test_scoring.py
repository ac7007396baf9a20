"""The spellings in which engines score given tokens, and what is read from replies like those that the engines send."""

from __future__ import annotations

import math
from typing import Any

import pytest
from enginebench.dialects import scoring
from enginebench.dialects.scoring import Question, Scores, Scoring

ASKED = Question("m", (5, 6, 7, 8), first=2, top=2)


def answered(its: Scoring, *replies: Any, asked: Question = ASKED) -> Scores:
    assert len(list(its.asks(asked))) == len(replies)
    return its.read(asked, replies)


def test_vllm_reports_a_dictionary_for_each_prompt_token_with_the_token_itself_in_it() -> None:
    (ask,) = scoring.prompt_logprobs().asks(ASKED)
    assert ask.path == "/v1/completions"
    assert ask.body == {"model": "m", "prompt": [5, 6, 7, 8], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 2}
    places = [None, *({str(t): {"logprob": -3.0}, "1": {"logprob": -0.5}, "2": {"logprob": -1.0}} for t in (6, 7, 8))]
    found = answered(scoring.prompt_logprobs(), {"choices": [{"prompt_logprobs": places}]})
    assert found == Scores((-3.0, -3.0), ({1: -0.5, 2: -1.0}, {1: -0.5, 2: -1.0}))


def test_sglang_reports_logprob_id_and_text_and_none_for_the_first() -> None:
    (ask,) = scoring.input_token_logprobs().asks(ASKED)
    assert ask.path == "/generate"
    assert (ask.body["input_ids"], ask.body["logprob_start_len"], ask.body["top_logprobs_num"]) == ([5, 6, 7, 8], 0, 2)
    own = [[None, 5, None], [-1.0, 6, None], [-2.0, 7, None], [-4.0, 8, None]]
    tops = [None, [[-0.1, 1, None]], [[-0.2, 1, None], [-0.3, 2, None]], [[-0.4, 3, None]]]
    reply = {"meta_info": {"input_token_logprobs": own, "input_top_logprobs": tops}}
    assert answered(scoring.input_token_logprobs(), reply) == Scores((-2.0, -4.0), ({1: -0.2, 2: -0.3}, {3: -0.4}))
    own[2][1] = 9
    with pytest.raises(ValueError, match="not those that were sent"):
        answered(scoring.input_token_logprobs(), reply)


def test_llama_cpp_gets_one_request_for_each_token_with_its_prefix_and_a_bias_on_it() -> None:
    asks = list(scoring.forced_tokens().asks(ASKED))
    assert [(ask.body["prompt"], ask.body["logit_bias"], ask.body["cache_prompt"]) for ask in asks] == [
        ([5, 6], [[7, scoring.FORCED]], True),
        ([5, 6, 7], [[8, scoring.FORCED]], True),
    ]

    def reply(token: int, logprob: float) -> Any:
        tops = [{"id": 1, "logprob": -0.5}, {"id": 2, "logprob": -0.7}]
        return {"choices": [{"logprobs": {"content": [{"id": token, "logprob": logprob, "top_logprobs": tops}]}}]}

    found = answered(scoring.forced_tokens(), reply(7, -2.5), reply(8, -3.4028234663852886e38))
    assert found == Scores((-2.5, scoring.LEAST), ({1: -0.5, 2: -0.7}, {1: -0.5, 2: -0.7}))
    with pytest.raises(ValueError, match="token 7 was forced, and 9 was sampled"):
        answered(scoring.forced_tokens(), reply(9, -2.5), reply(8, -1.0))


@pytest.mark.parametrize("generated", [[], [-0.1]])
def test_an_echo_may_end_with_the_token_that_was_generated(generated: list[float]) -> None:
    reply = {"choices": [{"logprobs": {"token_logprobs": [None, -1.0, -2.0, -4.0, *generated]}}]}
    assert answered(scoring.echoed(), reply) == Scores((-2.0, -4.0))
    with pytest.raises(ValueError, match="scores 6 tokens"):
        answered(scoring.echoed(), {"choices": [{"logprobs": {"token_logprobs": [None] * 6}}]})


def test_null_is_no_number_and_anything_else_is_an_error() -> None:
    found = answered(scoring.own_route(), {"logprobs": [None, -1.0], "top": [[[3, -0.2]], [[4, -0.3]]]})
    assert math.isnan(found.logprobs[0])
    assert found.top == ({3: -0.2}, {4: -0.3})
    wrongs: list[Any] = [{"logprobs": [-1.0]}, {"logprobs": ["x", -1.0], "top": [[], []]}, {"error": "no"}, []]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"reply|log-probability|list"):
            answered(scoring.own_route(), wrong)
