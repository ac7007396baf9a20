"""Prefill and decode on separate servers, as every engine that can do it is asked for it. Does not know engines."""

from __future__ import annotations

from dataclasses import dataclass

from enginebench.domain.deployment import Deployment
from enginebench.domain.refusals import refuse


@dataclass(frozen=True)
class PrefillDecode:
    """Prefill and decode on separate servers, each with the deployment's parallelism, behind our proxy."""

    prefill: int = 1
    decode: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """('prefill-0', ..., 'decode-0', ...)."""
        return (*(f"prefill-{i}" for i in range(self.prefill)), *(f"decode-{i}" for i in range(self.decode)))

    def place(self, server: int, nodes: int) -> tuple[int, int]:
        """The node of a server, by its place in `names`, and its place among the servers of that node."""
        return divmod(server, len(self.names) // max(1, nodes))


def servers_of(pair: PrefillDecode | None) -> int:
    """How many servers there are behind the proxy; 0 without one."""
    return len(pair.names) if pair is not None else 0


def check_disaggregated(deployment: Deployment, pair: PrefillDecode | None) -> None:
    """Refuse what no engine can do with prefill and decode servers. Raises Unsupported."""
    if pair is None:
        return
    servers, nodes = len(pair.names), deployment.nodes
    replicas = "a disaggregated server cannot have replicas: write more prefill and decode servers in place of dp_replicas"
    refuse(
        (deployment.runtime == "in-process", "disaggregated prefill needs several servers: there is none in-process"),
        (min(pair.prefill, pair.decode) < 1, "a disaggregated deployment needs at least one prefill and one decode server"),
        (deployment.parallelism.dp_replicas > 1, replicas),
        (servers % nodes, f"each of {nodes} nodes has as many servers: {servers} prefill and decode servers do not divide"),
    )
