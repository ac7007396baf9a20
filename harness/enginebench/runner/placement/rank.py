"""The command of each further node of an engine that spans several:

    python -m enginebench.runner.placement.rank UNIT.json --meeting FILE --rank N [--head HOST] [--node NAME] [--while-stdin]

It connects to the node that measures the unit, and does what that one asks: choose the engine's installation here, have the weights here,
start the processes of this node, and end them. All of it ends with the connection. FILE says where the first node listens, and is waited
for. Exit codes: 0 the unit has ended, 2 could not, 130 ended early.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import AuthenticationError
from pathlib import Path
from typing import Any

from enginebench.adapter import Adapter, Install, Node, Site, Unsupported, installed_packages
from enginebench.domain import plain_object
from enginebench.errors import Exit, UserError
from enginebench.runner.placement.unit import end_with_stdin
from enginebench.runner.placement.unit_data import INPUTS, Unit, read_unit, unpack
from enginebench.runtime.machine_lease import MachineLease, machine_lease
from enginebench.runtime.nodes import Channel, FollowerProcesses, NodeLost, connect

COME_S = 300.0
"""How long the first node may take to listen."""
HOST = "127.0.0.1"


@dataclass
class Rank:
    """What this node does for the first one. `answer` is called once for each ask, from several threads."""

    unit: Unit
    rank: int
    channel: Channel
    folder: Path
    lease: MachineLease
    processes: FollowerProcesses

    @cached_property
    def adapter(self) -> Adapter:
        """Of the unit's engine. UserError where this node's files differ from the driver's."""
        from enginebench.runner.placement.unit_plan import plan_of

        unpack(self.unit, self.folder / INPUTS)
        plan = plan_of(self.unit, self.folder / INPUTS)
        self.base = plan.base
        return plan.registry[self.unit.deployment.engine]

    def prepare(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        """Everything that a start needs of this node but the addresses of the others."""
        from enginebench.checkpoints import prepare
        from enginebench.engines.installed import installs_of
        from enginebench.runner.launch import checkpoints_of
        from enginebench.runtime import free_ports
        from enginebench.scenario.checkpoint import check_fetched

        deployment, adapter = self.unit.deployment, self.adapter
        if (users := self.lease.others()) and not self.unit.share_machine and self.unit.exclusive:
            raise UserError(f"it is in use by {', '.join(users)}")
        self.install: Install = adapter.choose(deployment, installs_of(adapter))
        check_fetched(adapter, deployment, self.base)
        self.weights = tuple(
            prepare(*each, adapter.checkpoint_format, self.base, lambda _: None) if each[0] else "" for each in checkpoints_of(deployment)
        )
        self.ports = free_ports(self.channel.own, count) if (count := adapter.traits(deployment).extra_ports) else ()
        packages = installed_packages(self.install.python) if self.install.python else {}
        return {"ports": list(self.ports), "install": plain_object(self.install), "packages": packages}

    def launch(self, ask: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is to be started on this node, with its own installation and weights."""
        from enginebench.runtime import free_port

        nodes = tuple(Node(each["address"], tuple(each["ports"])) for each in ask["nodes"])
        checkpoint, draft = self.weights
        site = Site(HOST, free_port(), self.folder, checkpoint, self.ports, draft, nodes=nodes)
        found = self.adapter.launch(self.unit.deployment, self.install, site)
        return {"members": [plain_object(member) for member in found.members if member.node == self.rank]}

    def answer(self, ask: Mapping[str, Any]) -> None:
        """Do what is asked, and reply with the result or with why not."""
        does: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any] | None]] = {
            "prepare": self.prepare, "launch": self.launch, "start": self.processes.start, "prove": self.processes.prove,
        }  # fmt: skip
        try:
            reply = does[ask["ask"]](ask) or {}
        except (Unsupported, UserError) as error:
            reply = {"error": "; ".join(line.strip() for line in str(error).splitlines())}
        except Exception as error:  # noqa: BLE001  # the first node must not wait for ever
            reply = {"error": str(error) or type(error).__name__, "log_tail": getattr(error, "log_tail", "")}
        with suppress(NodeLost):
            self.channel.send({"number": ask["number"], **reply})

    def serve(self) -> None:
        """Until the first node ends the connection."""
        with suppress(NodeLost):
            while True:
                ask = self.channel.receive()
                if ask["ask"] == "stop":
                    self.processes.stop_one(ask)
                else:  # making weights takes minutes, in which the connection may end
                    threading.Thread(target=self.answer, args=(ask,), name=ask["ask"], daemon=True).start()


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m enginebench.runner.placement.rank", description="Be one node of an engine.")
    parser.add_argument("unit", type=Path, metavar="UNIT.json")
    parser.add_argument("--meeting", type=Path, required=True, metavar="FILE")
    parser.add_argument("--rank", type=int, required=True, metavar="N", help="which node this is; the one that measures is 0")
    parser.add_argument("--head", default="", metavar="HOST", help="address of the node that measures, where FILE has none")
    parser.add_argument("--node", default="", metavar="NAME", help="name of this machine in the results")
    parser.add_argument("--while-stdin", action="store_true", help="end, with what runs here, when stdin is closed")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if given.while_stdin:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    try:
        _join(given)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except (UserError, OSError, AuthenticationError, NodeLost) as error:
        print(f"error: {error or type(error).__name__}", file=sys.stderr)  # noqa: T201  # the log of the job
        return Exit.USAGE
    return Exit.OK


def _join(given: argparse.Namespace) -> None:
    from enginebench.machine.host import facts
    from enginebench.runner.doctor import remove_leftovers

    unit = read_unit(given.unit)
    remove_leftovers(docker=False)
    with tempfile.TemporaryDirectory(prefix="enginebench-rank-") as folder, machine_lease(f"rank {given.rank} of {unit.name}") as lease:
        meeting = _wait_for(given.meeting)
        channel = connect(meeting["host"] or given.head, meeting["port"], bytes.fromhex(meeting["key"]), COME_S)
        rank = Rank(unit, given.rank, channel, Path(folder), lease, FollowerProcesses(channel, Path(folder)))
        try:
            channel.send({"rank": given.rank, "name": given.node, "machine": plain_object(facts())})
            rank.serve()
        finally:
            channel.close()  # first: a node that leaves is another event than a rank that dies
            rank.processes.stop()


def _wait_for(file: Path) -> Mapping[str, Any]:
    until = time.monotonic() + COME_S
    while not file.exists():
        if time.monotonic() > until:
            raise UserError(f"the first node did not say within {COME_S:g} s where it listens", file=file)
        time.sleep(0.1)
    found: Mapping[str, Any] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
