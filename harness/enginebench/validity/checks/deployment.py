"""Is the server the one that was asked for: the process that was started, its model, precision and options?"""

from collections.abc import Iterator
from pathlib import PurePath

from enginebench.adapter import Difference
from enginebench.domain import JSON
from enginebench.domain.formatting import stored
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import SUCCESSES, Context, Requirement

FEWEST_MATCHING = Threshold(4)
"""Letters that two names of one model have in common at least, if one holds the other."""

ANY_MODEL = ("any", "auto", "default", "model", "whatever")
"""Names by which a scenario means the one model that an attached server has."""
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed")
"""Fields of a request that say how tokens are chosen."""


def _reports(cell: Context) -> bool:
    """Whether the engine's configuration was read back. An adapter whose `resolved` fails leaves a difference of that name."""
    known = cell.launch is not None and bool(cell.launch.configuration.resolved)
    return known and all(its.name != "configuration" for its in _differences(cell))


def _differences(cell: Context) -> tuple[Difference, ...]:
    return cell.launch.configuration.differences if cell.launch is not None else ()


IDENTITY = Requirement(
    "proof of which process answered, as the server was attached to or its record is old",
    lambda cell: cell.record.identity is not None and cell.record.deployment.runtime != "attach",
)
CONFIGURATION = Requirement("configuration that the engine reports", _reports)
CONTEXT = Requirement("context length that the engine reports", lambda cell: _context(cell) > 0)


@check(
    meaning="random weights do not route tokens to experts as trained weights do",
    when={"scoped": "the model is a Mixture of Experts with random weights, and nothing forces its routing"},
    advice="write `checkpoints` in place of `random_weights`, or force the routing in `options`",
)
def random_routing(cell: Context) -> Iterator[Finding]:
    """A random router sends tokens to other experts than a trained one, and to more or fewer of them."""
    record = cell.record
    if record.traits.random_weights and not record.traits.dense and not record.traits.forced_routing:
        yield Finding("scoped", "random weights, and nothing forces their routing")


@check(
    meaning="tokens went to experts by a rule that is not even",
    when={"invalid": "a rule replaces the router, and it does not use the experts and the ranks that hold them evenly"},
    advice="choose the even rule of the option `routing`, or leave it out",
)
def uneven_routing(cell: Context) -> Iterator[Finding]:
    """A forced routing stands for a balanced router. One that loads some experts or ranks more than others measures neither."""
    if cell.record.traits.uneven_routing:
        yield Finding("invalid", cell.record.traits.uneven_routing)


@check(
    meaning="it is not proven that the measured server answered",
    when={"suspect": "the process that listens on the port was not traced to the one that was started"},
    advice="compare the server's own request log with this run",
    needs=(IDENTITY,),
)
def unproven_server(cell: Context) -> Iterator[Finding]:
    """Another server on the same port would answer just as well. Who started the server does not matter by itself: an attached server is
    marked `attached`, and is not suspect for that.
    """
    if cell.record.identity != "proven":
        yield Finding("suspect", str(cell.record.identity))


@check(
    meaning="another model was measured than the row names",
    when={
        "suspect": "the server reports one model, and neither its name nor that of the scenario holds the other (of at least "
        "{FEWEST_MATCHING} letters)"
    },
    advice="check the address and the port, or write the name that the server reports as `model`",
    needs=(CONFIGURATION,),
)
def wrong_model(cell: Context) -> Iterator[Finding]:
    """The wrong server on the port, or the right one with another model. Many servers ignore the name in a request."""
    unnamed = cell.record.deployment.runtime == "attach" and cell.record.deployment.model.lower() in ANY_MODEL
    for its in _differences(cell):
        if its.name == "model" and not unnamed and not _alike(its.asked, its.got):
            yield Finding("suspect", f"asked for {stored(its.asked)}, the server reports {stored(its.got)}")


@check(
    meaning="another precision was measured than the row names",
    when={"invalid": "the engine reports a precision of its weights that is not the deployment's"},
    advice="write the `precision` that the engine reports",
    needs=(CONFIGURATION,),
)
def precision_fallback(cell: Context) -> Iterator[Finding]:
    """Engines fall back without an error where the hardware lacks a precision."""
    for its in _differences(cell):
        if its.name == "precision":
            yield Finding("invalid", f"asked for precision {stored(its.asked)}, the engine reports {stored(its.got)}")


@check(
    meaning="the engine does not run with the settings that the row names",
    when={"suspect": "the engine reports another value for a setting of the deployment than the scenario asks for"},
    advice="see the engine's log in the run's logs/ for why it changed the setting",
    needs=(CONFIGURATION,),
)
def option_not_honoured(cell: Context) -> Iterator[Finding]:
    """Compared are the settings that the engine reports. More context, slots or KV cache than requested is not a difference, nor are fewer
    slots that still hold all requests of this load; what a context too small does is reported by `context_shift` and `prompt_truncated`.
    """
    for its in _differences(cell):
        unused = its.name == "slots" and isinstance(its.got, int) and cell.load.concurrency <= its.got
        if its.name not in ("model", "precision", "context", *SAMPLING) and not unused:
            yield Finding("suspect", f"asked for {its.name} {stored(its.asked)}, the engine reports {stored(its.got)}")


@check(
    meaning="the server chose tokens by its own defaults, which the load does not ask for",
    when={"suspect": "the server refused a field that says how tokens are chosen, and requests went out without it"},
    advice="write the value that the server accepts, e.g. `temperature: 1`",
    needs=(CONFIGURATION,),
)
def sampling_not_sent(cell: Context) -> Iterator[Finding]:
    """Loads are greedy unless they say otherwise. Sampling is slower in some engines, and other tokens go to other experts."""
    if missing := [f"{its.name} {stored(its.asked)}" for its in _differences(cell) if its.name in SAMPLING]:
        yield Finding("suspect", f"requests went out without {', '.join(missing)}, which the server refused")


@check(
    meaning="the engine dropped the oldest tokens, so it did less work than the load asks for",
    when={"suspect": "prompt and output of any request are longer than the context that the engine reports"},
    advice="raise `max_context`, or lower `input_tokens` or `output_tokens`",
    needs=(SUCCESSES, CONTEXT),
)
def context_shift(cell: Context) -> Iterator[Finding]:
    """An engine that keeps generating beyond its context shifts the KV cache: each token then attends to fewer tokens."""
    s, context = cell.samples, _context(cell)
    tokens = (s.input_tokens + s.output_tokens)[s.ok & (s.input_tokens >= 0) & (s.output_tokens >= 0)]
    if len(tokens) and (longest := int(tokens.max())) > context:
        detail = f"{longest:,} tokens of prompt and output in a context of {context:,}"
        yield Finding("suspect", detail, excess=longest / context)


def _context(cell: Context) -> int:
    found = cell.launch.configuration.resolved.get("context") if cell.launch is not None else None
    return found if isinstance(found, int) else 0


def _alike(asked: JSON, got: JSON) -> bool:
    """Whether two names may be of one model: 'org/Name' and '/models/name.gguf' are."""
    short, long = sorted((PurePath(str(name)).name.lower() for name in (asked, got)), key=len)
    return len(short) >= FEWEST_MATCHING and short.removesuffix(".gguf") in long
