"""Starts an engine and stops it again, whatever its runtime: processes, containers, an offline batch worker, or an attached server.

Inside `with open_engine(...)` it is ready, and the process that was started is known to answer its port. All members are ready before the
main server is started.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from enginebench.adapter import Adapter, Install, Launch, Member, Site, installed_packages
from enginebench.checkpoints import prepare
from enginebench.domain import Deployment
from enginebench.loadgen import Target
from enginebench.loadgen.remote.host import ClientHost, listen_host
from enginebench.records.launch import LaunchRecord
from enginebench.runner.engine import Engine
from enginebench.runner.http_engine import HttpEngine, attach
from enginebench.runner.offline import OfflineEngine
from enginebench.runner.prompts import PromptSource, vocabulary_of
from enginebench.runner.redaction import mask, redacted_get, secrets_of
from enginebench.runtime import EngineProcess, LaunchFailed, Place, ProcessGroup, Proof, Started, ThisMachine, passed_on
from enginebench.runtime.nodes import Followers
from enginebench.runtime.readiness import free_ports, http_get, wait_ready

HOST = "127.0.0.1"

Say: TypeAlias = Callable[[str], None]


@contextlib.contextmanager
def open_engine(
    adapter: Adapter, launch: LaunchRecord, installs: Sequence[Install], *, log: Path, base: Path, say: Say, processes: int = 1,
    folder: Path | None = None, hosts: Sequence[ClientHost] = (), others: Followers | None = None,
) -> Iterator[Engine]:  # fmt: skip
    """Start the deployment of `launch`, and stop it when the block ends. LaunchFailed with the reason and the end of the log.
    launch: completed step by step, so that the record of a failed start is as complete as possible. base: folder that relative paths of
    checkpoints, data sets and traces start from. say: receives what is being waited for. processes: client processes per load.
    folder: for temporary files. hosts: clients on other hosts, which the engine's address must be reachable for. others: the other nodes of
    an engine that spans several."""
    deployment, startup = launch.deployment, launch.startup
    prompts = PromptSource(base, deployment.max_context)
    if deployment.runtime == "attach":
        prompts.vocabulary = vocabulary_of(deployment, deployment.checkpoint, None, base)
        yield attach(adapter, launch, prompts, say, processes, hosts)
        return
    with tempfile.TemporaryDirectory(prefix="enginebench-", dir=folder, ignore_cleanup_errors=True) as site:
        checkpoint, draft = (prepare(*each, adapter.checkpoint_format, base, say) if each[0] else "" for each in checkpoints_of(deployment))
        if deployment.runtime == "docker":
            group, command = _in_containers(adapter, launch, checkpoint, draft, log, say)
        else:
            loras = {name: str((base / Path(path).expanduser()).resolve()) for name, path in deployment.loras.items()}
            host = listen_host(hosts) if hosts else HOST
            group, command = _as_processes(adapter, launch, (checkpoint, draft, loras), log, installs, Path(site), host, others)
        startup.command = command
        try:
            engine = _start(adapter, launch, command, group, prompts, processes, say)
            if isinstance(engine, HttpEngine):
                engine.hosts = hosts
            prompts.vocabulary = vocabulary_of(deployment, checkpoint, command, base)  # the engine may have downloaded it just now
            yield engine
        finally:
            stopping = time.monotonic()
            group.stop()
            startup.stop_s = time.monotonic() - stopping
            for written in log.parent.glob(f"{log.stem}.*"):  # also those of members
                mask(written, secrets_of(deployment))


def checkpoints_of(deployment: Deployment) -> tuple[tuple[str, str], tuple[str, str]]:
    """(reference, precision) of the model and of what proposes tokens for it; an empty reference where nothing does."""
    asked = deployment.speculation
    draft = (asked.draft or "", asked.draft_precision or deployment.precision) if asked is not None else ("", "")
    return (deployment.checkpoint, deployment.precision), draft


def _as_processes(
    adapter: Adapter,
    launch: LaunchRecord,
    weights: tuple[str, str, Mapping[str, str]],
    log: Path,
    installs: Sequence[Install],
    folder: Path,
    host: str,
    others: Followers | None,
) -> tuple[ProcessGroup, Launch]:
    """Where processes of this machine are started, and the command. weights: the checkpoint, that of the draft or '', and LoRA adapters.
    host: the address on which they listen."""
    deployment, startup = launch.deployment, launch.startup
    port, *extra = free_ports(host, 1 + adapter.traits(deployment).extra_ports)
    site = Site(host, port, folder, weights[0], tuple(extra), *weights[1:])
    install = startup.install = adapter.choose(deployment, installs)
    startup.packages = installed_packages(install.python) if install.python else {}
    startup.inherited = passed_on(os.environ)
    if others is not None:
        from enginebench.runner.several_nodes import spread

        return spread(adapter, launch, install, site, log, others)
    return ProcessGroup(ThisMachine(site), log), adapter.launch(deployment, install, site)


def _in_containers(adapter: Adapter, launch: LaunchRecord, checkpoint: str, draft: str, log: Path, say: Say) -> tuple[ProcessGroup, Launch]:
    """Where the deployment's containers are started, and the command. Raises LaunchFailed."""
    from enginebench.runner.containers import open_containers  # reads the table of images

    deployment, startup = launch.deployment, launch.startup
    opened = open_containers(adapter, deployment, checkpoint, draft, log, say)
    group = ProcessGroup(opened.pod, log)
    startup.install, startup.container, startup.inherited = opened.install, opened.facts, deployment.container.secrets
    try:
        command = adapter.launch(deployment.inside, opened.install, group.site)
    except BaseException:
        group.stop()
        raise
    return group, replace(command, notes=(*command.notes, *opened.notes))


def _start(
    adapter: Adapter, launch: LaunchRecord, command: Launch, group: ProcessGroup, prompts: PromptSource, processes: int, say: Say
) -> Engine:
    """Start all members at once, and the main process when they are ready. Raises LaunchFailed."""
    site, offline = group.site, launch.deployment.runtime == "in-process"
    say("starting")
    began = time.monotonic()
    timeout_s = launch.deployment.ready_timeout_s or command.ready_timeout_s
    group.start_members(command)
    proofs = [_await_member(adapter, member, group, timeout_s, say, began) for member in command.members if member.port]
    main = group.start_main(command, piped=offline)
    engine: Engine
    if offline and isinstance(main, EngineProcess):
        engine = OfflineEngine.connect(adapter, launch, main, prompts, timeout_s)
    else:
        target = Target(*group.place.reach(site.port))
        get = redacted_get(http_get(target.host, target.port), secrets_of(launch.deployment))
        wait_ready(adapter, get, group, timeout_s)
        proofs.append(_prove("", site.port, main, group.place))
        engine = HttpEngine(adapter, launch, prompts, group, get, command.served_name, target, processes=processes)
    if proofs:
        launch.startup.identity = next((proof.text for proof in proofs if proof.kind != "proven"), proofs[0].text)
    launch.startup.start_s = time.monotonic() - began
    return engine


def _await_member(adapter: Adapter, member: Member, group: ProcessGroup, timeout_s: float, say: Say, began: float) -> Proof:
    """Wait until a member is ready. LaunchFailed, with the name of the member, if it or another process of the group ends first."""
    say(f"waiting for {member.name}")
    process, prefix = group.members[member.name], f"member {member.name}: "
    try:
        wait_ready(adapter, http_get(*group.place_of(member).reach(member.port)), group, timeout_s, began=began)
    except LaunchFailed as failure:
        if group.ending:  # names the process that ended
            raise
        raise LaunchFailed(prefix + failure.reason, process.log_tail()) from None
    return _prove(prefix, member.port, process, group.place_of(member))


def _prove(prefix: str, port: int, process: Started, place: Place) -> Proof:
    """Verify that the port is answered by this process. LaunchFailed if it is answered by another."""
    proof = place.prove(port, process)
    if proof.kind == "foreign":
        raise LaunchFailed(prefix + proof.text, process.log_tail())
    return replace(proof, text=prefix + proof.text) if proof.kind == "unknown" else proof
