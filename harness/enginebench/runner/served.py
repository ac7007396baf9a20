"""An engine behind HTTP: how cells are sent to it, and how an engine that was up before us is attached to.

Knows nothing of starting processes; `opening` does that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from enginebench.adapter import Adapter, Get, Reply, Resolved
from enginebench.errors import UserError
from enginebench.loadgen import LoadResult, Progress, Target, WireRequest, run_load
from enginebench.nouns import Deployment, Load
from enginebench.prompts import Prompt
from enginebench.runner.engine import Opening
from enginebench.runtime import EngineProcess, http_get_url, wait_ready

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
    process: EngineProcess | None = None
    secret: str | None = None

    def run(
        self, prompts: Sequence[Prompt], load: Load, *, on_progress: Callable[[Progress], None] | None = None, keep_text: bool = False
    ) -> LoadResult:
        dialect = self.adapter.dialect(load)
        extra = self.adapter.request_fields(self.deployment, load, self.served_name)
        requests = [
            WireRequest(
                index=i,
                path=self.prefix + dialect.path,
                body=orjson.dumps(
                    dialect.body(
                        model=self.served_name,
                        prompt=self._spelled(prompt, load),
                        output_tokens=load.output_tokens,
                        temperature=load.temperature,
                        seed=load.seed if load.temperature > 0 else None,
                        extra=extra,
                    )
                ),
                asked_input_tokens=prompt.tokens,
                asked_output_tokens=load.output_tokens,
            )
            for i, prompt in enumerate(prompts)
        ]
        result = run_load(
            self.target,
            requests,
            concurrency=load.concurrency,
            dialect=dialect,
            timeout_s=load.timeout_s,
            on_progress=on_progress,
            keep_text=keep_text,
        )
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        if self.secret:  # a server may quote it back in an error, and errors are stored and shown
            for sample in result.samples:
                sample.error = sample.error.replace(self.secret, "***") if sample.error else None
        return result

    def _spelled(self, prompt: Prompt, load: Load) -> str | tuple[int, ...]:
        takes_ids = self.adapter.takes_ids(self.deployment) and load.api == "completions"
        if takes_ids and prompt.ids is not None:
            return prompt.ids
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

    def ending(self, patience_s: float = 0.0) -> str | None:
        if self.process is None:
            return None
        self.process.wait(patience_s)
        return self.process.ending

    def log_tail(self) -> tuple[str, ...]:
        return tuple(self.process.log_tail().splitlines()) if self.process else ()


def attach(adapter: Adapter, deployment: Deployment, opening: Opening) -> Served:
    """Reach a server that somebody else has started. Raises LaunchFailed when it does not answer."""
    url = urlsplit(deployment.url or "")
    key = api_key(deployment)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    tls = url.scheme == "https"
    target = Target(url.hostname or "", url.port or (443 if tls else 80), tls=tls, headers=headers)
    get = _without(key, http_get_url(deployment.url or "", headers=headers))
    wait_ready(adapter, get, None, deployment.ready_timeout_s or ATTACH_TIMEOUT_S)
    opening.identity = "attached: the server was started by somebody else"
    return Served(adapter, deployment, target, url.path.rstrip("/"), deployment.model, get, opening, secret=key)


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
