"""Is the server the one that was started, and does its model say anything about a trained one?"""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.validity.check import Finding, check
from enginebench.validity.context import Context, Requirement

IDENTITY = Requirement("record of which process answered", lambda cell: cell.record.identity is not None)


@check(
    meaning="random weights do not route tokens to experts as trained weights do",
    when={"unranked": "the model is a Mixture of Experts with random weights, and nothing forces its routing"},
    advice="write `checkpoints` in place of `random_weights`, or force the routing in the deployment's `options` where the engine can",
)
def random_routing(cell: Context) -> Iterator[Finding]:
    """A random router sends tokens to other experts than a trained one, and to more or fewer of them."""
    record = cell.record
    if record.traits.random_weights and not record.traits.dense and not record.traits.forced_routing:
        yield Finding("unranked", "random weights, and nothing forces their routing")


@check(
    meaning="it is not proven that the measured server answered",
    when={"suspect": "the process that listens on the port was not traced to the one that was started"},
    advice="make sure that no other server uses the port, or compare the server's own request log with this run",
    needs=(IDENTITY,),
)
def unproven_server(cell: Context) -> Iterator[Finding]:
    """Another server on the same port would answer just as well. Attached servers can never be traced."""
    if cell.record.identity != "proven":
        yield Finding("suspect", str(cell.record.identity))
