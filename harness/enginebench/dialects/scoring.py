"""How an engine is asked for its own log-probabilities of given tokens, and what its replies say.

Natural logarithms of the model's distribution, before any sampling setting. Token i is scored given all tokens before it in the same
window, and nothing else (teacher forcing). Does not know texts, perplexity or sockets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

from enginebench.domain import JSON

OWN_ROUTE = "/enginebench/scores"
"""Where servers made of our own workers score tokens, beside the engine's batch."""
LEAST = -103.28
"""The logarithm of the smallest float32: llama.cpp writes the lowest float for a probability that rounds to 0."""
_ECHOED = 5
"""The most that OpenAI's first API lists in a place."""
FORCED = 1e4
"""Added to a token's logit so that it is sampled whatever the others are; logits are a few hundred at most."""


@dataclass(frozen=True)
class Scores:
    """Of the scored tokens of one window, in order."""

    logprobs: tuple[float, ...]
    """Natural logarithms; NaN where the engine has no number."""
    top: tuple[Mapping[int, float], ...] = ()
    """For each scored token, the most probable tokens in its place -> their logarithms; empty where none were asked for."""
    unnamed: tuple[tuple[float, ...], ...] = ()
    """The same without the tokens, where a server names them by their text."""

    @property
    def listed(self) -> tuple[tuple[float, ...], ...]:
        """For each scored token the logarithms of the most probable tokens in its place; empty where there are none."""
        return self.unnamed or tuple(tuple(each.values()) for each in self.top)


@dataclass(frozen=True)
class Question:
    """The tokens of a window, of which those from `first` on are scored, with the `top` most probable tokens in place of each."""

    model: str | None
    """Name that requests carry."""
    ids: tuple[int, ...]
    first: int
    top: int = 0


@dataclass(frozen=True)
class Ask:
    """A POST request."""

    path: str
    body: Mapping[str, JSON]


@dataclass(frozen=True)
class Scoring:
    """One way in which an engine scores tokens."""

    how: str
    """What of the engine is used, for the record."""
    asks: Callable[[Question], Iterable[Ask]] = lambda _: ()
    """The requests of one window, sent one after another; none in-process, where the worker is asked."""
    read: Callable[[Question, Sequence[JSON]], Scores] = lambda _, __: Scores(())
    """The replies to them, in order. Raises ValueError for one that is not as expected."""
    batched: bool = True
    """Whether scored tokens go through the engine's own batch, together with other requests. Otherwise beside it: then scoring under load
    would say nothing about the load."""


def in_process(served: Scoring) -> Scoring:
    """The same where a worker is asked, in place of a server; see `adapters/workers/worker_protocol.py`."""
    return Scoring(served.how, batched=served.batched)


def prompt_logprobs() -> Scoring:
    """vLLM's `prompt_logprobs` on /v1/completions."""
    return Scoring("prompt_logprobs", _ask_prompt_logprobs, _read_prompt_logprobs)


def input_token_logprobs() -> Scoring:
    """SGLang's `return_logprob` on /generate."""
    return Scoring("input_token_logprobs", _ask_input_logprobs, _read_input_logprobs)


def echoed() -> Scoring:
    """OpenAI's first API: `echo` with `logprobs` on /v1/completions. The most probable tokens come as text, so there are none by id."""
    return Scoring("echo and logprobs of /v1/completions", _ask_echo, _read_echo)


def forced_tokens() -> Scoring:
    """llama.cpp's server: a request for each token, whose bias makes it the sampled one; the server reports the probability that it had
    before the bias. The prefix stays in the slot's KV, so each request computes one token."""
    return Scoring("logprob of a forced token, one request for each", _ask_forced, _read_forced)


def own_route() -> Scoring:
    """A route of our own worker, which runs the loaded model on the window."""
    return Scoring("forward pass of the loaded model", _ask_own, _read_own, batched=False)


# -- spellings ---------------------------------------------------------------------------------------------------------------------


def _ask_prompt_logprobs(q: Question) -> Iterator[Ask]:
    body: dict[str, JSON] = {"model": q.model, "prompt": list(q.ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": q.top}
    yield Ask("/v1/completions", body)


def _read_prompt_logprobs(q: Question, replies: Sequence[JSON]) -> Scores:
    places = _list(_of_prompt(_at(_at(replies[0], "choices"), 0), "prompt_logprobs"), len(q.ids))[q.first :]
    entries = [{int(token): _number(_at(its, "logprob")) for token, its in _object(place).items()} for place in places]
    own = [_own(entry, token) for entry, token in zip(entries, q.ids[q.first :], strict=True)]
    return Scores(tuple(own), tuple(_best(entry, q.top) for entry in entries) if q.top else ())


def _ask_input_logprobs(q: Question) -> Iterator[Ask]:
    yield Ask(
        "/generate",
        {
            "input_ids": list(q.ids), "sampling_params": {"max_new_tokens": 1, "temperature": 0}, "return_logprob": True,
            "logprob_start_len": 0, "top_logprobs_num": q.top,
        },
    )  # fmt: skip


def _read_input_logprobs(q: Question, replies: Sequence[JSON]) -> Scores:
    return of_sglang(q, _at(replies[0], "meta_info"))


def of_sglang(q: Question, meta: JSON) -> Scores:
    """The scores in SGLang's `meta_info`: [logprob, token id, text] for each token of the prompt, the first without a logprob."""
    found = _list(_of_prompt(meta, "input_token_logprobs"), len(q.ids))[q.first :]
    if [_at(each, 1) for each in found] != list(q.ids[q.first :]):
        raise ValueError("the scored tokens are not those that were sent")
    own = tuple(_number(_at(each, 0)) for each in found)
    if not q.top:
        return Scores(own)
    tops = _list(_at(meta, "input_top_logprobs"), len(q.ids))[q.first :]
    return Scores(own, tuple(_best({_id(_at(e, 1)): _number(_at(e, 0)) for e in _list(top)}, q.top) for top in tops))


def _ask_echo(q: Question) -> Iterator[Ask]:
    body: dict[str, JSON] = {"model": q.model, "prompt": list(q.ids), "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": _ECHOED}
    yield Ask("/v1/completions", body)


def _read_echo(q: Question, replies: Sequence[JSON]) -> Scores:
    logprobs = _of_prompt(_at(_at(replies[0], "choices"), 0), "logprobs")
    found = _list(_at(logprobs, "token_logprobs"))
    if len(found) not in (len(q.ids), len(q.ids) + 1):  # with or without the one token that was generated
        raise ValueError(f"the reply scores {len(found)} tokens, and {len(q.ids)} were sent")
    if found[0] is not None:
        raise ValueError("the reply scores the first token, which has nothing before it: its values are not those of the tokens sent")
    tops = logprobs.get("top_logprobs")
    listed = tops[q.first : len(q.ids)] if isinstance(tops, list) and len(tops) == len(found) else ()
    unnamed = tuple(tuple(map(_number, _object(each).values())) if each else () for each in listed)
    return Scores(tuple(_number(each) for each in found[q.first : len(q.ids)]), unnamed=unnamed)


def _ask_forced(q: Question) -> Iterator[Ask]:
    for place in range(q.first, len(q.ids)):
        yield Ask(
            "/v1/completions",
            {
                "model": q.model, "prompt": list(q.ids[:place]), "max_tokens": 1, "temperature": 0, "n_probs": max(1, q.top),
                "logit_bias": [[q.ids[place], FORCED]], "cache_prompt": True, "stream": False,
            },
        )  # fmt: skip


def _read_forced(q: Question, replies: Sequence[JSON]) -> Scores:
    own, tops = zip(*starmap(of_forced, zip(replies, q.ids[q.first :], strict=True)), strict=True)
    return Scores(tuple(own), tuple(_best(top, q.top) for top in tops) if q.top else ())


def of_forced(reply: JSON, token: int) -> tuple[float, dict[int, float]]:
    """(the logprob of the forced token, the most probable tokens) in a reply of llama.cpp's server."""
    sampled = _at(_at(_at(_at(_at(reply, "choices"), 0), "logprobs"), "content"), 0)
    if _at(sampled, "id") != token:
        raise ValueError(f"token {token} was forced, and {_at(sampled, 'id')} was sampled")
    tops = _list(_at(sampled, "top_logprobs"))
    return max(LEAST, _number(_at(sampled, "logprob"))), {_id(_at(each, "id")): max(LEAST, _number(_at(each, "logprob"))) for each in tops}


def _ask_own(q: Question) -> Iterator[Ask]:
    yield Ask(OWN_ROUTE, {"ids": list(q.ids), "first": q.first, "top": q.top})


def _read_own(q: Question, replies: Sequence[JSON]) -> Scores:
    return of_worker(q, replies[0])


def of_worker(q: Question, reply: JSON) -> Scores:
    """What our own workers reply: {"logprobs": [...], "top": [[[id, logprob], ...], ...]}; null for what is no number."""
    own = tuple(_number(each) for each in _list(_at(reply, "logprobs"), len(q.ids) - q.first))
    tops = _list(_at(reply, "top"), len(own)) if q.top else []
    return Scores(own, tuple({_id(_at(pair, 0)): _number(_at(pair, 1)) for pair in _list(top)} for top in tops))


# -- reading -----------------------------------------------------------------------------------------------------------------------


def _best(entries: Mapping[int, float], count: int) -> dict[int, float]:
    """The most probable `count`, in falling order."""
    return dict(sorted(entries.items(), key=lambda its: -its[1] if not math.isnan(its[1]) else math.inf)[:count])


def _own(entry: Mapping[int, float], token: int) -> float:
    if token not in entry:
        raise ValueError(f"the reply does not score token {token}")
    return entry[token]


def _number(value: JSON) -> float:
    """NaN for null, as servers write what is no number."""
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{str(value)[:60]!r} is no log-probability")
    return float(value)


def _id(value: JSON) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{str(value)[:60]!r} is no token id")
    return value


def _at(value: JSON, key: str | int) -> JSON:
    try:
        return value[key]  # type: ignore[index]  # any other value is an error just below
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"the reply has no '{key}': {str(value)[:120]}") from None


def _of_prompt(value: JSON, key: str) -> Any:
    """What a reply has about the tokens of the prompt."""
    found = value.get(key) if isinstance(value, Mapping) else None
    if found is None:
        raise ValueError(f"the reply has no log-probabilities of the prompt ('{key}'): {str(value)[:80]}")
    return found


def _object(value: JSON) -> Mapping[str, JSON]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{str(value)[:60]!r} is no object")
    return value


def _list(value: JSON, length: int | None = None) -> Sequence[JSON]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        got = f"{len(value)} entries" if isinstance(value, list) else str(value)[:60]
        raise ValueError(f"expected a list{f' of {length}' if length is not None else ''}, got {got}")
    return value
