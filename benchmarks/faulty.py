"""An engine for `bench run --adapter`: the server with planted faults (faulty_server.py), started and traced as any engine is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import enginebench.adapter as eb

ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as starter:
    starter.connect(sys.argv[1])
    starter.sendall(sys.argv[2].encode() + b"\\n")
    starter.recv(1)  # until the starter ends
"""
SERVER = Path(__file__).with_name("faulty_server.py")


@dataclass(frozen=True)
class FaultyOptions:
    faults: str = "{}"
    """The faults, as the server takes them: a JSON object."""
    starter: str = ""
    """Socket of a process that starts the server in the place of the harness (as a daemon does), so that it cannot be traced."""


class Faulty(eb.Adapter):
    name = "faulty"
    title = "faulty server"
    precisions = frozenset({"none", "f16", "q4_0"})
    options = FaultyOptions

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        return eb.Traits(gpus=0, takes_ids=True)

    def check(self, deployment: eb.Deployment) -> None:
        eb.refuse((deployment.parallelism != eb.Parallelism(), f"{self.title} has no parallelism"))

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return (eb.Install(variant="builtin", version="1", python=Path(sys.executable)),)

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        options = eb.options_as(FaultyOptions, deployment)
        argv = (str(install.python), str(SERVER), *site.address, "--model", deployment.model, "--context", str(deployment.max_context))
        argv = (*argv, options.faults)
        if options.starter:
            argv = (str(install.python), "-c", ASK, options.starter, json.dumps(argv))
        return eb.Launch(argv, deployment.model, ready_timeout_s=30.0)

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        return {"stream_options": {"include_usage": True}, "ignore_eos": True}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        props = eb.Fields(get("/props").json())
        return eb.Resolved(
            model=props.text("model"), precision=props.text("precision"), context=props.whole("context"),
            slots=props.whole("slots") or None, raw={"/props": props.value},
        )  # fmt: skip


def faults(**planted: object) -> str:
    """The option's value for these faults."""
    return json.dumps(planted)
