"""An engine behind HTTP: how cells are sent to it, and how an engine that was up before us is attached to.

Knows nothing of starting processes; `opening` does that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from enginebench.adapter import Adapter, Get, Reply, Resolved
from enginebench.domain import Deployment, Load
from enginebench.errors import UserError
from enginebench.loadgen import Acks, Body, LoadResult, LoadSpec, Progress, Target, WireRequest, run_load
from enginebench.runner.engine import Opening
from enginebench.runtime import ProcessGroup, http_get_url, wait_ready
from enginebench.runtime.place import Started
from enginebench.workload import Prompt

ATTACH_TIMEOUT_S = 10.0


@dataclass
class Served:
    """An engine behind HTTP; process is None for one that was already up."""

    adapter: Adapter
    deployment: Deployment
    target: Target
    prefix: str
    served_name: str
    get: Get
    opening: Opening
    process: ProcessGroup | None = None
    secret: str | None = None
    processes: int = 1
    """Client processes that share a load."""

    def run(
        self,
        prompts: Sequence[Prompt],
        load: Load,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        keep_text: bool = False,
        acks: Acks = "usual",
    ) -> LoadResult:
        dialect = self.adapter.dialect(self.deployment, load)
        extra = self.adapter.request_fields(self.deployment, load)
        said: list[Prompt] = []
        requests = []
        for index, prompt in enumerate(prompts):
            said = [*said, prompt] if prompt.turn else [prompt]
            body = dialect.body(
                model=self.served_name,
                prompt=self._conversation(said, load) if load.turns > 1 else self._spelled(prompt, load),
                output_tokens=prompt.output_tokens,
                temperature=load.temperature,
                seed=load.seed if load.temperature > 0 else None,
                extra=extra,
            )
            requests.append(
                WireRequest(
                    index=index,
                    path=self.prefix + dialect.path,
                    body=_pieces(orjson.dumps(body)),
                    asked_input_tokens=prompt.tokens,
                    asked_output_tokens=prompt.output_tokens,
                    due_ns=None if prompt.due_s is None else round(prompt.due_s * 1e9),
                    think_ns=round(load.think_s * 1e9),
                    conversation=prompt.conversation,
                    turn=prompt.turn,
                )
            )
        spec = LoadSpec(
            self.target,
            requests,
            load.concurrency,
            dialect,
            load.timeout_s,
            keep_text=keep_text,
            ramp_ns=round(load.start_spread_s * 1e9),
            duration_ns=None if load.duration_s is None else round(load.duration_s * 1e9),
            dispersion=load.dispersion,
            acks=acks,
        )
        result = run_load(spec, on_progress, processes=self.processes)
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        if self.secret:  # a server may quote it back in an error, and errors are stored and shown
            for sample in result.samples:
                sample.error = sample.error.replace(self.secret, "***") if sample.error else None
        return result

    def _conversation(self, said: Sequence[Prompt], load: Load) -> str | list[dict[str, str]]:
        """What was said so far, with a mark for each answer: messages where the route takes them, else one running text."""
        texts = [self._text(prompt) for prompt in said]
        if load.api != "chat":
            return "".join(text + _mark(turn) for turn, text in enumerate(texts[:-1])) + texts[-1]
        messages = [{"role": "user", "content": texts[0]}]
        for turn, text in enumerate(texts[1:]):
            messages += [{"role": "assistant", "content": _mark(turn)}, {"role": "user", "content": text}]
        return messages

    def _spelled(self, prompt: Prompt, load: Load) -> str | tuple[int, ...]:
        takes_ids = self.adapter.traits(self.deployment).takes_ids and load.api == "completions"
        return prompt.ids if takes_ids and prompt.ids is not None else self._text(prompt)

    def _text(self, prompt: Prompt) -> str:
        if prompt.text is None:
            raise UserError(
                f"{self.adapter.title} takes prompts as text, and this checkpoint's tokenizer cannot be read",
                advice="put tokenizer.json beside the checkpoint",
            )
        return prompt.text

    def counters(self) -> Mapping[str, float]:
        return self.adapter.counters(self.get)

    def resolved(self) -> Resolved:
        return self.adapter.resolved(self.get)

    def started(self) -> Mapping[str, Started]:
        return self.process.started if self.process is not None else {}

    def ending(self, patience_s: float = 0.0) -> str | None:
        if self.process is None:
            return None
        self.process.wait(patience_s)
        return self.process.ending

    def log_tail(self) -> tuple[str, ...]:
        return tuple(self.process.log_tail().splitlines()) if self.process else ()


_MARK = "\ue000answer {}\ue000"
_MARKS = re.compile("\ue000answer ([0-9]+)\ue000".encode())
"""Stands in a request for an answer that is not known yet; private-use characters, which no prompt holds."""


def _mark(turn: int) -> str:
    return _MARK.format(turn)


def _pieces(body: bytes) -> Body:
    """A body that holds marks as its pieces, with the turn in place of each mark."""
    parts = _MARKS.split(body)
    return body if len(parts) == 1 else tuple(int(part) if i % 2 else part for i, part in enumerate(parts))


def attach(adapter: Adapter, deployment: Deployment, opening: Opening, processes: int = 1) -> Served:
    """Reach a server that somebody else has started. Raises LaunchFailed when it does not answer."""
    url = urlsplit(deployment.url or "")
    key = api_key(deployment)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    tls = url.scheme == "https"
    target = Target(url.hostname or "", url.port or (443 if tls else 80), tls=tls, headers=headers)
    get = _without(key, http_get_url(deployment.url or "", headers=headers))
    wait_ready(adapter, get, None, deployment.ready_timeout_s or ATTACH_TIMEOUT_S)
    opening.identity = "attached: the server was started by somebody else"
    return Served(adapter, deployment, target, url.path.rstrip("/"), deployment.model, get, opening, secret=key, processes=processes)


def api_key(deployment: Deployment) -> str | None:
    """The key of an attached server, from the environment; it is stored nowhere. UserError when it is named and not there."""
    if deployment.api_key_env is None:
        return None
    key = os.environ.get(deployment.api_key_env)
    if not key:
        raise UserError(f"the environment variable {deployment.api_key_env} is not set", advice=f"export {deployment.api_key_env}=...")
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the environment variable {deployment.api_key_env} holds a character that no header can carry, such as a line break"
        )
    return key


def _without(secret: str | None, get: Get) -> Get:
    """A `Get` whose answers do not hold the secret: they go into records and error messages."""

    def redacted(path: str) -> Reply:
        reply = get(path)
        return Reply(reply.status, reply.body.replace(secret.encode(), b"***")) if secret else reply

    return redacted
