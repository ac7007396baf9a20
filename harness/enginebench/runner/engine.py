"""One deployment that answers, whatever its runtime: started by us, attached to, or a batch worker in another process.

`open_engine` is a context manager: inside it the engine is ready, proven to be ours and has generated once; leaving it ends
everything that was started. Knows nothing of cells, records of cells or metrics.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import orjson

from enginebench.adapter import Adapter, Difference, Get, Install, Launch, Resolved, Site
from enginebench.checkpoints import Vocabulary, prepare, read_vocabulary
from enginebench.errors import UserError
from enginebench.loadgen import LoadResult, Progress, Target, WireRequest, run_load
from enginebench.nouns import JSON, Deployment, Load, Sample
from enginebench.prompts import Prompt, TextScale, make_prompts
from enginebench.runner.offline import OfflineWorker
from enginebench.runtime import EngineProcess, LaunchFailed, free_port, http_get, http_get_url, unique_tag, verify_listener, wait_ready

STOP_GRACE_S = 10.0
ATTACH_TIMEOUT_S = 10.0
CALIBRATION_TOKENS = 24
"""Length of the second priming prompt, by which a server's way of counting text is told from what it adds to every prompt."""
HOST = "127.0.0.1"


class Engine(Protocol):
    """What a cell needs of a deployment that is up."""

    opening: Opening

    def run(
        self, prompts: Sequence[Prompt], load: Load, *, on_progress: Callable[[Progress], None] | None = None, keep_text: bool = False
    ) -> LoadResult:
        """Send these prompts under this load and return every sample."""
        ...

    def counters(self) -> Mapping[str, float]:
        """The engine's own totals so far, under neutral names."""
        ...

    def resolved(self) -> Resolved:
        """What the engine says of its own configuration."""
        ...

    def ending(self, patience_s: float = 0.0) -> str | None:
        """How the engine ended, in words; None while it is up. patience_s: wait that long for an end that is likely."""
        ...

    def log_tail(self) -> tuple[str, ...]:
        """The last lines the engine wrote; empty where there is no log."""
        ...


@dataclass
class Opening:
    """What is known once an engine is up; becomes the launch record."""

    launch: Launch | None = None
    install: Install | None = None
    start_s: float | None = None
    stop_s: float | None = None
    identity: str | None = None
    resolved: Resolved = field(default_factory=Resolved)
    differences: tuple[Difference, ...] = ()
    vocabulary: Vocabulary | None = None
    scale: TextScale | None = None
    """How an engine whose tokenizer is unknown counts text; measured by `prime`."""

    def prompts(self, load: Load, count: int, *, salt: str) -> list[Prompt]:
        """`make_prompts` with what is known of this engine's tokenizer."""
        return make_prompts(self.vocabulary, load, count, salt=salt, scale=self.scale)


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
        return run_load(
            self.target,
            requests,
            concurrency=load.concurrency,
            dialect=dialect,
            timeout_s=load.timeout_s,
            on_progress=on_progress,
            keep_text=keep_text,
        )

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


@contextlib.contextmanager
def open_engine(
    adapter: Adapter,
    deployment: Deployment,
    installs: Sequence[Install],
    opening: Opening,
    *,
    log: Path,
    base: Path,
    say: Callable[[str], None],
) -> Iterator[Engine]:
    """Bring a deployment up and take it down again. Raises LaunchFailed with the reason and the log's last lines.

    opening is filled in on the way, so that a start that fails has said as much as it could. base: the folder that relative
    checkpoint paths start from. say: told what is being waited for.
    """
    if deployment.runtime == "attach":
        yield _attach(adapter, deployment, base, opening)
        return
    with tempfile.TemporaryDirectory(prefix="enginebench-", ignore_cleanup_errors=True) as folder:
        checkpoint = prepare(deployment.checkpoint, deployment.precision, adapter.checkpoint_format, base, say)
        site = Site(HOST, free_port(HOST), Path(folder), checkpoint)
        install = adapter.choose(deployment, installs)
        launch = adapter.launch(deployment, install, site)
        opening.launch, opening.install = launch, install
        opening.vocabulary = _vocabulary(Path(checkpoint))
        say("starting")
        began = time.monotonic()
        talk = deployment.runtime == "in-process"
        process = EngineProcess.start(launch, site, log=log, tag=unique_tag(log.stem), talk=talk)
        try:
            engine: Engine
            if talk:
                engine = OfflineWorker.greet(adapter, process, opening, deployment.ready_timeout_s or launch.ready_timeout_s)
            else:
                engine = _serve(adapter, deployment, process, site, opening)
            opening.start_s = time.monotonic() - began
            yield engine
        finally:
            stopping = time.monotonic()
            process.stop(STOP_GRACE_S)
            opening.stop_s = time.monotonic() - stopping


def _serve(adapter: Adapter, deployment: Deployment, process: EngineProcess, site: Site, opening: Opening) -> Served:
    launch = opening.launch
    assert launch is not None  # noqa: S101  # set by open_engine
    get = http_get(site.host, site.port)
    wait_ready(adapter, get, process, deployment.ready_timeout_s or launch.ready_timeout_s)
    foreign = verify_listener(site.port, process, site.host)
    if foreign and "cannot be attributed" not in foreign:
        raise LaunchFailed(foreign, process.log_tail())
    opening.identity = foreign or "proven"
    return Served(adapter, deployment, Target(site.host, site.port), "", launch.served_name, get, opening, process)


def _attach(adapter: Adapter, deployment: Deployment, base: Path, opening: Opening) -> Served:
    url = urlsplit(deployment.url or "")
    headers = authorization(deployment)
    tls = url.scheme == "https"
    target = Target(url.hostname or "", url.port or (443 if tls else 80), tls=tls, headers=headers)
    get = http_get_url(deployment.url or "", headers=headers)
    wait_ready(adapter, get, None, deployment.ready_timeout_s or ATTACH_TIMEOUT_S)
    opening.identity = "attached: the server was started by somebody else"
    opening.vocabulary = _vocabulary(base / deployment.checkpoint)
    return Served(adapter, deployment, target, url.path.rstrip("/"), deployment.model, get, opening)


def _vocabulary(checkpoint: Path) -> Vocabulary | None:
    """What prompts can be made of; None for a hub id, an engine without weights, or a tokenizer nobody here can read."""
    try:
        return read_vocabulary(checkpoint) if checkpoint.exists() else None
    except UserError:
        return None


def authorization(deployment: Deployment) -> dict[str, str]:
    """The Authorization header of an attached server; the key comes from the environment and is stored nowhere."""
    if deployment.api_key_env is None:
        return {}
    key = os.environ.get(deployment.api_key_env)
    if not key:
        raise UserError(f"the environment variable {deployment.api_key_env} is not set", advice=f"export {deployment.api_key_env}=...")
    return {"Authorization": f"Bearer {key}"}


def differences(deployment: Deployment, resolved: Resolved) -> tuple[Difference, ...]:
    """Where the engine's own word differs from what was asked. Fields the engine does not tell are no difference."""
    asked: dict[str, JSON] = {"precision": deployment.precision, "context": deployment.max_context, "slots": deployment.max_concurrency}
    told: dict[str, JSON] = {"precision": resolved.precision, "context": resolved.context, "slots": resolved.slots, **resolved.options}
    found: list[Difference] = []
    for name, want in {**asked, **deployment.options}.items():
        got = told.get(name)
        if got is None or (name == "precision" and want in ("none", "unstated")):
            continue
        enough = isinstance(got, int) and isinstance(want, int) and got >= want  # more context or slots is no shortfall
        if got != want and not enough:
            found.append(Difference(name, want, got))
    return tuple(found)


def prime(engine: Engine, deployment: Deployment, load: Load, *, salt: str) -> None:
    """One real, short generation, then the engine's own word on its configuration: the last step of readiness.

    Two generations where the tokenizer is unknown, to see how the engine counts text.

    In this order, because some engines only know what they run once they have run. Raises LaunchFailed when nothing comes of it.
    """
    short = replace(load, concurrency=1, requests=1, output_tokens=min(8, load.output_tokens))
    opening = engine.opening
    counted: list[tuple[int, int]] = []
    for length in (short.input_tokens, *((CALIBRATION_TOKENS,) if opening.vocabulary is None else ())):
        (prompt,) = opening.prompts(replace(short, input_tokens=length), 1, salt=f"{salt}/{length}")
        sample = _generate(engine, prompt, short)
        if prompt.ids is None and prompt.text and sample.input_tokens:
            counted.append((len(prompt.text.split()), sample.input_tokens))
    if len(counted) == 2 and counted[0][0] != counted[1][0]:
        opening.scale = TextScale.fit(*sorted(counted))
    opening.resolved = engine.resolved()
    opening.differences = differences(deployment, opening.resolved)


def _generate(engine: Engine, prompt: Prompt, load: Load) -> Sample:
    sample = engine.run([prompt], load).samples[0]
    if sample.outcome != "ok":
        detail = f": {sample.error}" if sample.error else ""
        raise LaunchFailed(f"it is up, but its first generation failed ({sample.outcome}){detail}", "\n".join(engine.log_tail()))
    return sample
