"""What pages are made with: templates, style, scripts, library, and their content security policies. Knows no run.

A page is one file that holds all of this, or the page of a site (`Place`), which links what all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from enginebench.domain.formatting import page_text, size
from enginebench.machine.folders import resource_dir
from enginebench.report.packed import Packed, packed_plotly, script_hash
from enginebench.report.styles import read_template

if TYPE_CHECKING:
    import jinja2

SITE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""Of the pages of a site: scripts and data of the site itself, inline styles (Plotly creates some), nothing from elsewhere."""


@dataclass(frozen=True)
class Place:
    """Where a page lies in a site. Links are relative to the page."""

    style: str
    scripts: tuple[str, ...]
    library: str
    """The plotting library, as a script that all pages share."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Text -> target: the other pages of the site."""


def page_environment() -> jinja2.Environment:
    """For templates of pages: every text is escaped, and has no control characters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("reports/templates")), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=page_text, bytecode_cache=_compiled(),
    )  # fmt: skip
    environment.filters |= {"bytes": size, "prose": _prose}
    return environment


@cache
def _compiled() -> jinja2.BytecodeCache:
    """The compiled templates of this process: compiling them takes as long as the rest of a page."""
    import jinja2

    kept: dict[str, bytes] = {}

    class Kept(jinja2.BytecodeCache):
        def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
            if bucket.key in kept:
                bucket.bytecode_from_string(kept[bucket.key])

        def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
            kept[bucket.key] = bucket.bytecode_to_string()

    return Kept()


def page_style() -> str:
    """The style of every page, without the colours of its deployments."""
    return read_template("chart.css") + read_template("report.css") + _stacked(read_template("stack.css"))


def page_script() -> str:
    """What makes a page interactive."""
    return read_template("report.js") + read_template("tables.js")


def contained() -> dict[str, object]:
    """Style, scripts and library of a page that is one file, and the policy that allows these scripts."""
    from markupsafe import Markup

    script = page_script()
    library, library_hash = packed_plotly()
    return {
        "shared_css": Markup(page_style()),  # noqa: S704  # our own file
        "report_js": Markup(script),  # noqa: S704  # our own file
        "library": packed(library),
        "policy": _policy(library_hash, script_hash(script)),
    }


def packed(its: Packed) -> dict[str, object]:
    """Packed text for a script element."""
    from markupsafe import Markup

    return {"text": Markup(its.text), "block": its.block}  # noqa: S704  # pack leaves no markup


def _stacked(css: str) -> str:
    """The rules that turn the rows of a table into blocks, for each width below which a table needs them."""
    narrow = {name: f"screen and (max-width:{name[1:]}px)" for name in ("f760", "f1040", "f1240")}
    return "".join(f"@media {media}{{{css.replace('.T', f'.{name}')}}}" for name, media in {**narrow, "f0": "screen"}.items())


def _prose(text: str) -> str:
    """Text without backticks, which are for terminals."""
    return text.replace("`", "")


def _policy(*hashes: str) -> str:
    """The content security policy: these scripts by hash, inline styles (Plotly creates some), nothing from elsewhere."""
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
