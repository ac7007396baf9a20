"""Brings a deployment up and takes it down again, whatever its runtime: started by us, attached to, or a batch worker.

`open_engine` is a context manager: inside it the engine is ready and proven to be ours; leaving it ends everything that was
started. A deployment of several servers has its members ready and proven before the main one is started. Knows nothing of
cells, records or metrics.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from enginebench.adapter import Adapter, Install, Member, Site, installed_packages
from enginebench.checkpoints import prepare
from enginebench.domain import Deployment
from enginebench.loadgen import Target
from enginebench.runner.engine import Engine, Opening
from enginebench.runner.offline import OfflineWorker
from enginebench.runner.served import Served, attach
from enginebench.runner.vocabulary import vocabulary_of
from enginebench.runtime import (
    EngineProcess,
    LaunchFailed,
    ProcessGroup,
    Proof,
    Started,
    ThisMachine,
    free_ports,
    http_get,
    passed_on,
    wait_ready,
)

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
        opening.vocabulary = vocabulary_of(deployment, deployment.checkpoint, None, base)
        yield attach(adapter, deployment, opening, processes)
        return
    with tempfile.TemporaryDirectory(prefix="enginebench-", ignore_cleanup_errors=True) as folder:
        checkpoint = prepare(deployment.checkpoint, deployment.precision, adapter.checkpoint_format, base, say)
        if deployment.runtime == "docker":
            group = _boxed(adapter, deployment, checkpoint, opening, log, say)
        else:
            group = _unboxed(adapter, deployment, checkpoint, opening, log, installs, Path(folder))
        try:
            engine = _bring_up(adapter, deployment.inside, group, opening, processes, say)
            opening.vocabulary = vocabulary_of(deployment, checkpoint, opening.launch, base)  # it may have been fetched just now
            yield engine
        finally:
            stopping = time.monotonic()
            group.stop()
            opening.stop_s = time.monotonic() - stopping


def _unboxed(
    adapter: Adapter, deployment: Deployment, checkpoint: str, opening: Opening, log: Path, installs: Sequence[Install], folder: Path
) -> ProcessGroup:
    """What is launched and where, as processes of this machine."""
    port, *extra = free_ports(HOST, 1 + adapter.traits(deployment).extra_ports)
    site = Site(HOST, port, folder, checkpoint, tuple(extra))
    install = adapter.choose(deployment, installs)
    opening.launch, opening.install = adapter.launch(deployment, install, site), install
    opening.packages = installed_packages(install.python) if install.python else {}
    opening.inherited = passed_on(os.environ)
    return ProcessGroup(ThisMachine(site), log)


def _boxed(
    adapter: Adapter, deployment: Deployment, checkpoint: str, opening: Opening, log: Path, say: Callable[[str], None]
) -> ProcessGroup:
    """What is launched and where, in containers of this deployment's own. Raises LaunchFailed."""
    from enginebench.runner.containers import open_contained  # needs the table of images

    contained = open_contained(adapter, deployment, checkpoint, log, say)
    group = ProcessGroup(contained.pod, log)
    opening.install, opening.container, opening.inherited = contained.install, contained.facts, deployment.container.secrets
    try:
        launch = adapter.launch(deployment.inside, contained.install, group.site)
    except BaseException:
        group.stop()
        raise
    opening.launch = replace(launch, notes=(*launch.notes, *contained.notes))
    return group


def _bring_up(
    adapter: Adapter, deployment: Deployment, group: ProcessGroup, opening: Opening, processes: int, say: Callable[[str], None]
) -> Engine:
    """Start the members at once, and when they are ready the main process. Raises LaunchFailed."""
    launch, site = opening.launch, group.site
    assert launch is not None  # noqa: S101  # set by open_engine
    say("starting")
    began = time.monotonic()
    patience_s = deployment.ready_timeout_s or launch.ready_timeout_s
    group.start_members(launch)
    proofs = [_await_member(adapter, member, group, patience_s, say, began) for member in launch.members]
    main = group.start_main(launch, piped=deployment.runtime == "in-process")
    engine: Engine
    if isinstance(main, EngineProcess) and deployment.runtime == "in-process":
        engine = OfflineWorker.greet(adapter, deployment, main, opening, patience_s)
    else:
        target = Target(*group.place.reach(site.port))
        get = http_get(target.host, target.port)
        wait_ready(adapter, get, group, patience_s)
        proofs.append(_prove("", site.port, main, group))
        engine = Served(adapter, deployment, target, "", launch.served_name, get, opening, group, processes=processes)
    if proofs:
        opening.identity = next((proof.text for proof in proofs if proof.kind != "proven"), proofs[0].text)
    opening.start_s = time.monotonic() - began
    return engine


def _await_member(
    adapter: Adapter, member: Member, group: ProcessGroup, timeout_s: float, say: Callable[[str], None], began: float
) -> Proof:
    """Wait until one of the members is ready, while none of the others ends. Raises LaunchFailed, with the member's name."""
    say(f"waiting for {member.name}")
    process, who = group.members[member.name], f"member {member.name}: "
    try:
        wait_ready(adapter, http_get(*group.place.reach(member.port)), group, timeout_s, began=began)
    except LaunchFailed as failure:
        if group.ending:  # which says whose end it was
            raise
        raise LaunchFailed(who + failure.reason, process.log_tail()) from None
    return _prove(who, member.port, process, group)


def _prove(who: str, port: int, process: Started, group: ProcessGroup) -> Proof:
    """That the port is answered by this process; Raises LaunchFailed when it is answered by another."""
    proof = group.place.prove(port, process)
    if proof.kind == "foreign":
        raise LaunchFailed(who + proof.text, process.log_tail())
    return replace(proof, text=who + proof.text) if proof.kind == "unknown" else proof
