"""`bench client`: this machine as a client host of runs on other machines."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import ADAPTERS


@click.command(epilog="\b\nExamples:\n  bench client --listen 192.168.1.11:7777\n  bench run my.yaml --clients TOKEN@192.168.1.11:7777")
@click.option("--listen", "where", metavar="HOST:PORT", default="127.0.0.1:0", help="Address of this machine; port 0: a free one.")
@ADAPTERS
def client(where: str, adapters: Sequence[Path]) -> None:
    """Send load for runs on other machines, one at a time, until Ctrl-C.

    It prints what `bench run` needs there, with a token: who knows that can let this machine send requests to any address. The token
    is made anew at every start, unless ENGINEBENCH_CLIENT_TOKEN states it. Nothing is encrypted.
    """
    with contextlib.suppress(KeyboardInterrupt), enginebench.listen_client(where, adapters=adapters, say=_say) as listening:
        token = "" if listening.stated else f"{listening.token}@"
        click.echo(f"--clients {token}{listening.address}")
        _say("Ctrl-C ends it")
        listening.serve()


def _say(line: str) -> None:
    click.echo(line, err=True)
