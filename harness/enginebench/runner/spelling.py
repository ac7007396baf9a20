"""How an attached server wants requests to be spelled: its route, and the names of fields. Learned from what it refuses.

Servers that speak OpenAI's protocol differ in this, and say so with an error to the first request. Only that is adapted to; a server that
has answered once is not asked again. Does not know engines.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from enginebench.adapter import Get, Reply
from enginebench.domain import JSON, Sample

_V1 = "/v1"
_ROUTES = ("/chat/completions", "/completions")
_OPTIONAL = ("temperature", "top_p", "seed", "stream_options", "ignore_eos")
"""Fields that may be left out; what a server does without them is its default."""
_NO_FIELD = re.compile(r"un(supported|recognized|known|expected)|not (support|permitted|allowed)|extra", re.IGNORECASE)
_REFUSED = re.compile(rf"{_NO_FIELD.pattern}|invalid", re.IGNORECASE)


@dataclass
class Spelling:
    """What is known of one server."""

    without_v1: bool = False
    """The routes do not begin with /v1."""
    certain: bool = False
    """Whether that is known."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Field -> its name on this server."""
    left_out: dict[str, JSON] = field(default_factory=dict)
    """Fields that the server refuses, with the value that they would have had."""
    answered: bool = False
    """The server has answered a request."""
    say: Callable[[str], None] = lambda _: None
    """Receives what the server refused and what is sent instead."""

    def path(self, path: str) -> str:
        """The path of a dialect on this server."""
        return path.removeprefix(_V1) if self.without_v1 else path

    def body(self, body: Mapping[str, JSON]) -> dict[str, JSON]:
        """A request's body for this server."""
        for name in self.left_out.keys() & body.keys():
            self.left_out[name] = body[name]
        return {self.renamed.get(name, name): value for name, value in body.items() if name not in self.left_out}

    def adapt(self, samples: Sequence[Sample]) -> bool:
        """Change the spelling after a refusal. Returns whether it is worth sending the requests again."""
        self.answered = self.answered or any(sample.outcome == "ok" for sample in samples)
        statuses = {sample.status_code for sample in samples}
        if self.answered or not samples or statuses - {400, 404, 405, 422}:
            return False
        if statuses <= {404, 405}:
            if self.certain:
                for sample in samples:
                    sample.error = f"{sample.error} (with and without /v1)"
                return False
            self.certain = self.without_v1 = True
            self.say(f"HTTP {statuses.pop()} for the route with /v1: trying it without")
            return True
        return self._adapt_fields(samples[0].error or "")

    def _adapt_fields(self, message: str) -> bool:
        refused = "max_completion_tokens" in message or (_NO_FIELD.search(message) and re.search(r"\bmax_tokens\b", message))
        if refused and "max_tokens" not in self.renamed:
            self.renamed["max_tokens"] = "max_completion_tokens"
            self.say("the server refuses max_tokens: sending max_completion_tokens")
            return True
        named = [name for name in _OPTIONAL if re.search(rf"\b{name}\b", message) and name not in self.left_out]
        if not named or not _REFUSED.search(message):
            return False
        self.left_out |= dict.fromkeys(named)
        self.say(f"the server refuses {', '.join(named)}: sending requests without")
        return True


def spelling_of(path: str, say: Callable[[str], None]) -> tuple[Spelling, str]:
    """What the path of a URL says, and the prefix of all paths: a path that ends in a route is exact, any other may lack /v1."""
    path = path.rstrip("/")
    for route in _ROUTES:
        if path.endswith(route):
            prefix = path.removesuffix(route)
            return Spelling(without_v1=not prefix.endswith(_V1), certain=True, say=say), prefix.removesuffix(_V1)
    return Spelling(say=say), path


def with_either_path(get: Get) -> Get:
    """A `Get` that also tries a path without its /v1."""

    def either(path: str) -> Reply:
        reply = get(path)
        if reply.status == 404 and path.startswith(f"{_V1}/"):
            shorter = get(path.removeprefix(_V1))
            return shorter if shorter.status != 404 else reply
        return reply

    return either
