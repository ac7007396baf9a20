"""A Markdown table of published measurements next to the ceilings of their configurations.

For claims with a configuration and a rate. If no batch is stated, the ceiling is that of the largest batch that fits, so the share shows
how much of the hardware was used, not how good the engine is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from enginebench.audit.claims import Claims
from enginebench.audit.judge import Finding
from enginebench.audit.outcome import number, share_text


def ceiling_and_batch(finding: Finding) -> tuple[float, int] | None:
    """The ceiling in tokens/s at the stated batch, or at the largest that fits; with that batch. None without a ceiling."""
    if finding.highest is not None and finding.highest_batch is not None:
        return finding.highest, finding.highest_batch
    return (finding.ceiling, finding.batch) if finding.ceiling is not None and finding.batch is not None else None


def field_table(claims: Claims, findings: Sequence[Finding]) -> str:
    """The table, then the list of its sources."""
    return "\n".join((*_rows(findings), "", *_sources(claims, findings))) + "\n"


def _rows(findings: Sequence[Finding]) -> Iterator[str]:
    yield "| model | machine | tokens | published tok/s | ceiling tok/s | at batch | share | possible from batch | source |"
    yield "|---|---|---|--:|--:|--:|--:|--:|---|"
    for finding in findings:
        claim, ceiling = finding.serving, ceiling_and_batch(finding)
        if claim is None or ceiling is None or finding.stated is None:
            continue
        tokens = f"{claim.isl:,} + {claim.osl:,}" if claim.isl and claim.osl else "not stated"
        machine = ", ".join(filter(None, (claim.hardware, claim.parallelism_text)))
        batch = f"{ceiling[1]:,}" + ("" if claim.concurrency else " (most)")
        yield (
            f"| {claim.model} {claim.precision} | {machine} | {tokens} | {number(finding.stated)} | {number(ceiling[0])} | {batch} | "
            f"{share_text(finding.stated / ceiling[0])} | {finding.least or '-'} | {finding.source} |"
        )


def _sources(claims: Claims, findings: Sequence[Finding]) -> Iterator[str]:
    used = {finding.source for finding in findings}
    for name, source in claims.sources.items():
        if name in used:
            link = f"[{source.title}]({source.url})" if source.url else source.title
            about = ", ".join(filter(None, (link, source.author, source.date)))
            yield f"- **{name}**: {about}{f'; {source.note}' if source.note else ''}"
    for finding in findings:
        if finding.serving and finding.serving.note:
            yield f"- {finding.serving.model} on {finding.serving.hardware}: {finding.serving.note}"
