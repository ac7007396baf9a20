"""Results for people: terminal table, Markdown, CSV, JSON and the HTML page, all from one `Analysis`.

    columns   which figures are shown, in which unit        sections  the parts of a report, one file each
    table     the terminal                                  export    Markdown, CSV, JSON
    html      the page                                      comparison, plan, run   two runs, a plan, a stored run

Reads an analysis and, for distributions, raw samples. Knows neither the runner nor the load generator and measures nothing.
rich, pandas, jinja2 and plotly are imported only by the functions that need them, and the names below when they are asked for, so that an
import of this package is cheap: a list of runs needs none of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enginebench.report.export import to_csv, to_json, to_markdown
    from enginebench.report.table import render_table
else:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module 'enginebench.report' has no attribute '{name}'")
        return getattr(import_module(f"enginebench.report.{'table' if name == 'render_table' else 'export'}"), name)


__all__ = ["render_table", "to_csv", "to_json", "to_markdown"]
