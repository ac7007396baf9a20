"""Of figures that another tool measured: do its known faults apply, and do the figures themselves show one?

Where a file has single requests, the other checks look at these as well.
"""

from collections.abc import Iterator

from enginebench.domain.formatting import percent
from enginebench.metrics.registry import Trait
from enginebench.records.cell import has_samples
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.checks.load import FEWEST_OPEN, FEWEST_PER_STREAM, RATE_INVALID
from enginebench.validity.checks.replies import LENGTH_OFF
from enginebench.validity.checks.stream import INSTANT, STEP
from enginebench.validity.context import Context, Requirement

CACHED = Threshold(0.01, "share")

CACHE_COUNTS = Requirement(
    "counts of cached prompt tokens in the file of another tool", lambda cell: cell.record.imported is None or cell.cache.by is not None
)


def _stated_only(cell: Context) -> bool:
    """Whether a file states figures instead of single requests, at least of rates."""
    return cell.record.stated is not None and (not has_samples(cell.record) or "start times" in cell.lacks)


@check(
    meaning="the client of the tool is known to be the limit at this load",
    when={"suspect": "a fault of the tool that was measured (docs/dialects.md) applies to as many requests in flight"},
    advice="measure it again: `bench rerun FILE`",
)
def client_of_tool(cell: Context) -> Iterator[Finding]:
    """How late the client of a tool is, and how many streams it holds, was measured against a server with known token times."""
    its = cell.record.imported
    if its is not None and its.faults:
        yield Finding("suspect", f"{its.tool}: {'; '.join(its.faults)}")


@check(
    meaning="prompts were partly cached, so prefill was less work than their length says",
    when={"suspect": "over {CACHED} of the prompt tokens came from the prefix cache of a server that another tool measured"},
    advice="measure it again with unique prompts: `bench rerun FILE`",
    needs=(CACHE_COUNTS,),
)
def cached_prompts(cell: Context) -> Iterator[Finding]:
    """Tools that reuse prompts, or send the one of the warm-up again, measure the cache. Most files do not say whether that was meant."""
    if cell.record.imported is None:
        return
    cache = cell.cache
    share = cache.cached / max(cache.prompt, 1)
    if share > CACHED:
        yield Finding("suspect", f"{percent(share)} of the prompt tokens were cached (limit {CACHED})", excess=share)


@check(
    meaning="tokens came in bursts, so ITL describes the delivery and not the generation",
    when={"suspect": "the stated median ITL is below {INSTANT}, and the stated TPOT above {STEP}"},
    advice="switch off buffering in proxies, and the engine's option for several tokens an event",
    withholds=(Trait.GAPS,),
)
def stated_bursts(cell: Context) -> Iterator[Finding]:
    """As `burst_delivery`, where a file states medians only: half of all gaps are next to 0, and the tokens take longer on average."""
    itl_ms, tpot_ms = (cell.stated.get(name, 0.0) * 1e3 for name in ("itl_p50", "tpot_p50"))
    if _stated_only(cell) and "itl_p50" in cell.stated and itl_ms < INSTANT and tpot_ms > STEP:
        yield Finding("suspect", f"ITL p50 {itl_ms:.3g} ms (limit {INSTANT}), TPOT p50 {tpot_ms:.3g} ms", withholds=True)


@check(
    meaning="the load was not served at its rate",
    when={"suspect": "the stated requests/s are below {RATE_INVALID} of the rate of an open loop"},
    advice="lower the rate, or measure it again with `bench rerun FILE`, which tells client and server apart",
)
def stated_rate(cell: Context) -> Iterator[Finding]:
    """Either the client sent too late, or the server's queue grew; a file without single requests does not say which."""
    served, wanted = cell.stated.get("request_throughput"), cell.load.mean_rate
    if _stated_only(cell) and served is not None and wanted and served < RATE_INVALID * wanted:
        yield Finding("suspect", f"{served:,.3g} of {wanted:,.3g} requests/s (limit {RATE_INVALID})", excess=wanted / max(served, 1e-9))


@check(
    meaning="the measured work is not what the load asks for",
    when={"suspect": "stated tokens/s and requests/s give replies over {LENGTH_OFF} longer or shorter than asked"},
    advice="check that the engine honours `ignore_eos` or its own way to force a length",
)
def stated_lengths(cell: Context) -> Iterator[Finding]:
    """Both rates are over the same time, so their ratio is the mean length of a reply."""
    tokens, requests, asked = cell.stated.get("output_throughput"), cell.stated.get("request_throughput"), cell.load.output_length
    if _stated_only(cell) and tokens and requests and asked and abs(tokens / requests / asked - 1) > LENGTH_OFF:
        found = tokens / requests
        yield Finding("suspect", f"asked for {asked} output tokens, {found:.0f} came on average (limit {LENGTH_OFF})", excess=found / asked)


@check(
    meaning="too few requests to call this a steady load",
    when={
        "suspect": "an open loop, or a load that was handed over at once, had fewer than {FEWEST_OPEN}, a closed loop fewer than "
        "{FEWEST_PER_STREAM} a stream"
    },
    advice="raise the number of requests",
)
def stated_few(cell: Context) -> Iterator[Finding]:
    """As `few_requests`, of which the file states only the number."""
    sent, load = cell.load.requests, cell.load
    if not _stated_only(cell):
        return
    if load.open_loop or sent == load.concurrency > 1:
        if 0 < sent < FEWEST_OPEN:
            yield Finding("suspect", f"{sent} requests (limit {FEWEST_OPEN})", excess=1 / sent)
    elif 0 < sent < FEWEST_PER_STREAM * load.concurrency:
        detail = f"{sent} requests for {load.concurrency} streams (limit {FEWEST_PER_STREAM} a stream)"
        yield Finding("suspect", detail, excess=load.concurrency / sent)
