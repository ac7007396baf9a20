"""Brings a deployment up and takes it down again, whatever its runtime: started by us, attached to, or a batch worker.

`open_engine` is a context manager: inside it the engine is ready and proven to be ours; leaving it ends everything that was
started. Knows nothing of cells, records or metrics.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from enginebench.adapter import Adapter, Install, Site, installed_packages
from enginebench.checkpoints import Vocabulary, prepare, read_vocabulary
from enginebench.errors import UserError
from enginebench.loadgen import Target
from enginebench.nouns import Deployment
from enginebench.runner.engine import Engine, Opening
from enginebench.runner.offline import OfflineWorker
from enginebench.runner.served import Served, attach
from enginebench.runtime import EngineProcess, LaunchFailed, free_port, http_get, passed_on, unique_tag, verify_listener, wait_ready

STOP_GRACE_S = 10.0
HOST = "127.0.0.1"


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
    processes: int = 1,
) -> Iterator[Engine]:
    """Bring a deployment up and take it down again. Raises LaunchFailed with the reason and the log's last lines.

    opening is filled in on the way, so that a start that fails has said as much as it could. base: the folder that relative
    checkpoint paths, data sets and traces start from. say: told what is being waited for. processes: client processes per load.
    """
    opening.base, opening.max_context = base, deployment.max_context
    if deployment.runtime == "attach":
        opening.vocabulary = _vocabulary(base / deployment.checkpoint)
        yield attach(adapter, deployment, opening, processes)
        return
    with tempfile.TemporaryDirectory(prefix="enginebench-", ignore_cleanup_errors=True) as folder:
        checkpoint = prepare(deployment.checkpoint, deployment.precision, adapter.checkpoint_format, base, say)
        site = Site(HOST, free_port(HOST), Path(folder), checkpoint)
        install = adapter.choose(deployment, installs)
        launch = adapter.launch(deployment, install, site)
        opening.launch, opening.install = launch, install
        opening.vocabulary = _vocabulary(Path(checkpoint))
        opening.packages = installed_packages(install.python) if install.python else {}
        opening.inherited = passed_on(os.environ)
        say("starting")
        began = time.monotonic()
        talk = deployment.runtime == "in-process"
        process = EngineProcess.start(launch, site, log=log, tag=unique_tag(log.stem), talk=talk)
        try:
            engine: Engine
            if talk:
                engine = OfflineWorker.greet(adapter, deployment, process, opening, deployment.ready_timeout_s or launch.ready_timeout_s)
            else:
                engine = _serve(adapter, deployment, process, site, opening, processes)
            opening.start_s = time.monotonic() - began
            yield engine
        finally:
            stopping = time.monotonic()
            process.stop(STOP_GRACE_S)
            opening.stop_s = time.monotonic() - stopping


def _serve(adapter: Adapter, deployment: Deployment, process: EngineProcess, site: Site, opening: Opening, processes: int) -> Served:
    launch = opening.launch
    assert launch is not None  # noqa: S101  # set by open_engine
    get = http_get(site.host, site.port)
    wait_ready(adapter, get, process, deployment.ready_timeout_s or launch.ready_timeout_s)
    proof = verify_listener(site.port, process, site.host)
    if proof.kind == "foreign":
        raise LaunchFailed(proof.text, process.log_tail())
    opening.identity = proof.text
    target = Target(site.host, site.port)
    return Served(adapter, deployment, target, "", launch.served_name, get, opening, process, processes=processes)


def _vocabulary(checkpoint: Path) -> Vocabulary | None:
    """What prompts can be made of; None for a hub id, an engine without weights, or a tokenizer nobody here can read."""
    try:
        return read_vocabulary(checkpoint) if checkpoint.exists() else None
    except UserError:
        return None
