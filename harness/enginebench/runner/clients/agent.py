"""`bench client`: sends parts of loads for runs on other machines, and says how this machine was meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from enginebench.domain import JSON
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.loadgen.health import Vitals
from enginebench.loadgen.remote.agent import Agent
from enginebench.loadgen.remote.host import LOOPBACK
from enginebench.runner.calibration import client_limit
from enginebench.runner.clients.hosts import TOKEN_VARIABLE, about_this_machine, address_of
from enginebench.runner.instruments import PROGRAM
from enginebench.runner.sidecar import Sidecar
from enginebench.runtime.machine_lease import machine_lease

SAMPLER: Mapping[str, JSON] = {"gpus": False, "containers": {}, "processes": {}, "attached": None, "every_s": 1.0}
"""Only the machine itself: there is no engine here."""


@dataclass
class ListeningClient:
    """A client that other machines can reach while the block lasts: `with listen_client(...) as client: client.serve()`."""

    address: str
    """HOST:PORT."""
    token: str
    """Who knows it may let this machine send load."""
    stated: bool
    """The token is from the environment, and need not be shown."""
    _agent: Agent
    _listener: socket.socket

    def serve(self) -> None:
        """Serve one run after another, until KeyboardInterrupt."""
        self._agent.serve(self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def listen_client(
    where: str = f"{LOOPBACK}:0", *, adapters: Sequence[str | Path] = (), say: Callable[[str], None] = lambda _: None
) -> ListeningClient:
    """A client that sends parts of the loads of runs on other machines, who prove that they have its token.

    where: HOST:PORT to listen on, an address of this machine and a port, or 0 for a free one. adapters: files of adapters with a dialect of
    their own. say: told one line about every run and load.
    UserError for an address that this machine does not have, and for an adapter that cannot be loaded.
    """
    address = address_of(where, "--listen")
    discover(map(Path, adapters)).survey()  # loads them all, so that their dialects are known
    stated = os.environ.get(TOKEN_VARIABLE)
    token = stated or secrets.token_hex(12)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise UserError(
            f"--listen {where}: {os.strerror(error.errno or 0)}", advice="name an address of this machine and a free port"
        ) from None
    host, port = listener.getsockname()[:2]
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ListeningClient(name, token, stated is not None, Agent(token, about_this_machine(), watch, say), listener)


@contextlib.contextmanager
def watch(its: Mapping[str, JSON]) -> Iterator[Callable[[list[Vitals]], dict[str, JSON]]]:
    """See `remote.agent.Watch`. On the machine of the run itself the lease is the run's, and tells of others."""
    here = bool(its.get("boot")) and its.get("boot") == about_this_machine()["boot"]
    with contextlib.ExitStack() as stack:
        lease = None if here else stack.enter_context(machine_lease(f"bench client for {its.get('purpose', 'a run')}"))
        others = lease.others() if lease else []
        sidecar = Sidecar(PROGRAM)
        stack.callback(sidecar.end)
        sidecar.configure(SAMPLER)
        sidecar.begin()

        def found(vitals: list[Vitals]) -> dict[str, JSON]:
            output = sidecar.collect()
            stamps = "kernel" if all(each.stamps == "kernel" for each in vitals) else "loop"
            seen = [*others, *(lease.others() if lease else ())]
            return {
                "telemetry": json.loads(output) if output.endswith(b"\n") else [],
                "limit": dict(client_limit(len(vitals), stamps)), "others": ", ".join(dict.fromkeys(seen)),
            }  # fmt: skip

        yield found
