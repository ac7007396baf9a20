"""An engine behind HTTP: sends cells to it, and attaches to a server that is already running."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import orjson

from enginebench.adapter import Adapter
from enginebench.dialects import Dialect, Form, PromptInput, image_part
from enginebench.dialects.scoring import Question, Scores, Scoring
from enginebench.domain import JSON, Deployment, Load
from enginebench.errors import UserError
from enginebench.loadgen import Acks, Body, LoadResult, LoadSpec, Target, WireRequest, run_load
from enginebench.loadgen.remote.host import ClientHost
from enginebench.records.launch import LaunchRecord
from enginebench.runner.engine import Engine, OnProgress
from enginebench.runner.prompts import PromptSource
from enginebench.runner.redaction import redact, redacted_get, secrets_of
from enginebench.runner.spelling import Spelling, spelling_of, with_either_path
from enginebench.runtime import http_get_url, wait_ready
from enginebench.runtime.posting import Poster
from enginebench.runtime.readiness import tls_context
from enginebench.workload import Prompt, form_of

ATTACH_TIMEOUT_S = 10.0


@dataclass
class HttpEngine(Engine):
    """An `Engine` behind HTTP."""

    served_name: str
    target: Target
    prefix: str = ""
    """Put before the path of every request."""
    processes: int = 1
    """Client processes that share a load."""
    query: str = ""
    """Put after the path of every request."""
    spelling: Spelling = field(default_factory=Spelling)
    """How an attached server wants requests to be spelled."""
    end_marks: dict[str, frozenset[str]] = field(default_factory=dict)
    """API -> what its streams end with, as the loads so far have shown (`LoadResult.end_marks`)."""
    hosts: Sequence[ClientHost] = ()
    """Clients on other hosts, which send what is measured in the place of this machine."""

    @property
    def deployment(self) -> Deployment:
        """As the adapter sees it."""
        return self.launch.deployment.inside

    def run(
        self, prompts: Sequence[Prompt], load: Load, *, on_progress: OnProgress = None, keep_text: bool = False, acks: Acks = "usual",
        measured: bool = False,
    ) -> LoadResult:  # fmt: skip
        hosts = self.hosts if measured else ()
        result = self._run(prompts, load, on_progress, acks, hosts, keep_text=keep_text)
        while self.process is None and self.spelling.adapt(result.samples):
            result = self._run(prompts, load, on_progress, acks, hosts, keep_text=keep_text)
        return result

    def score(self, scoring: Scoring, question: Question) -> Scores:
        with self._poster() as post:
            replies = [post(self._path(ask.path), ask.body) for ask in scoring.asks(question)]
        return scoring.read(question, replies)

    def post(self, path: str, body: Mapping[str, JSON]) -> JSON:
        """The reply to a JSON request of its own. Raises NotAnswered."""
        with self._poster() as post:
            return post(self._path(path), self.spelling.body(body))

    def _poster(self) -> Poster:
        target = self.target
        tls = tls_context(target.ca_file) if target.tls else None
        return Poster(target.host, target.port, tls=tls, headers=target.headers)

    def _path(self, path: str) -> str:
        """The path of a dialect on this server."""
        return self.prefix + self.spelling.path(path) + self.query

    @property
    def left_out(self) -> Mapping[str, JSON]:
        return self.spelling.left_out

    def _run(
        self, prompts: Sequence[Prompt], load: Load, on_progress: OnProgress, acks: Acks, hosts: Sequence[ClientHost], *, keep_text: bool
    ) -> LoadResult:
        dialect = self.adapter.dialect(self.deployment, load)
        duration_ns = None if load.duration_s is None else round(load.duration_s * 1e9)
        spec = LoadSpec(
            self._target(dialect), list(self._requests(prompts, load)), load.concurrency, dialect, load.timeout_s, keep_text=keep_text,
            ramp_ns=round(load.start_spread_s * 1e9), duration_ns=duration_ns, dispersion=load.dispersion, acks=acks,
            end_marks=self.end_marks.get(load.api, frozenset()),
        )  # fmt: skip
        result = run_load(spec, on_progress, processes=self.processes, hosts=hosts)
        self.end_marks[load.api] = result.end_marks
        if result.stopped == "interrupted":
            raise KeyboardInterrupt
        redact(result.samples, secrets_of(self.launch.deployment))
        return result

    def _target(self, dialect: Dialect) -> Target:
        return replace(self.target, headers={**dialect.headers, **self.target.headers}) if dialect.headers else self.target

    def _requests(self, prompts: Sequence[Prompt], load: Load) -> Iterator[WireRequest]:
        """The prompts as requests of this engine's dialect."""
        dialect = self.adapter.dialect(self.deployment, load)
        fields, form = self.adapter.request_fields(self.deployment, load), form_of(load, self.prompts.base)
        extra = _with_form(fields, dialect, form)
        turns: list[Prompt] = []
        loras = [self.adapter.lora_fields(self.deployment, name) for name in list(self.deployment.loras)[: load.loras]]
        for index, prompt in enumerate(prompts):
            turns = [*turns, prompt] if prompt.turn else [prompt]
            content = self._content(turns, load)
            own = extra if prompt.form is None else _with_form(extra, dialect, prompt.form)
            own = {**own, **loras[index % len(loras)]} if loras else own
            body = dialect.body(
                model=self.served_name, prompt=content, output_tokens=prompt.output_tokens, temperature=load.temperature,
                seed=load.seed if load.temperature > 0 else None, extra=own,
            )  # fmt: skip
            due_ns = None if prompt.due_s is None else round(prompt.due_s * 1e9)
            path, body = self._path(dialect.path), self.spelling.body(body)
            yield WireRequest(
                index, path, _pieces(orjson.dumps(body)), prompt.tokens, prompt.output_tokens, due_ns=due_ns,
                think_ns=round((load.think_s if prompt.waiting is None else prompt.waiting.delay_s) * 1e9),
                conversation=prompt.conversation, turn=prompt.turn,
                after=() if prompt.waiting is None else prompt.waiting.rows, abort_ns=round(prompt.abort_s * 1e9),
            )  # fmt: skip

    def _content(self, turns: Sequence[Prompt], load: Load) -> PromptInput:
        """What the last of these turns sends: its own messages, or all turns so far, or its text or token ids alone."""
        prompt = turns[-1]
        if prompt.messages and load.templated:
            said: list[dict[str, JSON]] = orjson.loads(prompt.messages)
            return said
        if load.turns > 1 or turns[0].system or turns[0].images:
            return self._conversation(turns, load)
        return self._ids_or_text(prompt, load)

    def _conversation(self, turns: Sequence[Prompt], load: Load) -> str | list[dict[str, JSON]]:
        """All turns so far, with a placeholder for each answer: messages for the chat route, otherwise one text."""
        texts = [self._text(prompt) for prompt in turns]
        if not load.templated:
            return "".join(text + _placeholder(turn) for turn, text in enumerate(texts[:-1])) + texts[-1]
        messages: list[dict[str, JSON]] = [{"role": "system", "content": system}] if (system := turns[0].system) else []
        pictures = [image_part(image) for image in turns[0].images]
        messages.append({"role": "user", "content": [*pictures, {"type": "text", "text": texts[0]}] if pictures else texts[0]})
        for turn, text in enumerate(texts[1:]):
            messages += [{"role": "assistant", "content": _placeholder(turn)}, {"role": "user", "content": text}]
        return messages

    def _ids_or_text(self, prompt: Prompt, load: Load) -> str | Sequence[int]:
        takes_ids = self.adapter.traits(self.deployment).takes_ids and load.api == "completions"
        return prompt.ids if takes_ids and prompt.ids is not None else self._text(prompt)

    def _text(self, prompt: Prompt) -> str:
        if prompt.text is None:
            raise UserError(
                f"{self.adapter.title} takes prompts as text, and this checkpoint's tokenizer cannot be read",
                advice="put tokenizer.json next to the checkpoint",
            )
        return prompt.text


def _with_form(fields: Mapping[str, JSON], dialect: Dialect, form: Form) -> Mapping[str, JSON]:
    """The fields of a request with its tools and the form of its answer. An answer with a form ends when it is complete: forced to
    go on, it would leave the form, and llama.cpp ends the stream with an error."""
    kept = {name: value for name, value in fields.items() if name != "ignore_eos"} if form.response_format is not None else fields
    return {**kept, **dialect.form_fields(form)} if form else fields


_PLACEHOLDER = "\ue000answer {}\ue000"
_PLACEHOLDERS = re.compile("\ue000answer ([0-9]+)\ue000".encode())
"""Stands for an answer that is not yet available. Uses private-use characters, which no prompt contains."""


def _placeholder(turn: int) -> str:
    return _PLACEHOLDER.format(turn)


def _pieces(body: bytes) -> Body:
    """A body split at its placeholders, with the number of the turn in place of each placeholder."""
    parts = _PLACEHOLDERS.split(body)
    return body if len(parts) == 1 else tuple(int(part) if i % 2 else part for i, part in enumerate(parts))


def attach(
    adapter: Adapter,
    launch: LaunchRecord,
    prompts: PromptSource,
    say: Callable[[str], None],
    processes: int = 1,
    hosts: Sequence[ClientHost] = (),
) -> HttpEngine:
    """Connect to a server that is already running. LaunchFailed if it does not respond."""
    deployment = launch.deployment
    url = urlsplit(deployment.url or "")
    key = api_key(deployment)
    header = deployment.api_key_header
    headers = {header: key} if key and header else {"Authorization": f"Bearer {key}"} if key else {}
    tls, ca_file = url.scheme == "https", deployment.ca_file and str(prompts.base / Path(deployment.ca_file).expanduser())
    target = Target(url.hostname or "", url.port or (443 if tls else 80), tls=tls, headers=headers, ca_file=ca_file)
    spelling, prefix = spelling_of(url.path, say)
    base = urlunsplit(url._replace(path=prefix))
    get = redacted_get(with_either_path(http_get_url(base, headers=headers, ca_file=ca_file)), secrets_of(deployment))
    wait_ready(adapter, get, None, deployment.ready_timeout_s or ATTACH_TIMEOUT_S)
    launch.startup.identity = "attached: the server was not started by enginebench"
    query = f"?{url.query}" if url.query else ""
    return HttpEngine(adapter, launch, prompts, None, get, deployment.model, target, prefix, processes, query, spelling, hosts=hosts)


def api_key(deployment: Deployment) -> str | None:
    """The key of an attached server, from the environment. It is never stored. UserError if the variable is named but not set."""
    if deployment.api_key_env is None:
        return None
    key = os.environ.get(deployment.api_key_env)
    if not key:
        raise UserError(f"the environment variable {deployment.api_key_env} is not set", advice=f"export {deployment.api_key_env}=...")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {deployment.api_key_env} has a character that is invalid in a header, e.g. a line break")
    return key
