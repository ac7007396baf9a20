"""Results for people: terminal table, Markdown, CSV, JSON and the HTML page, all from one `Analysis`.

    columns   which figures are shown, in which unit        sections  the parts of a report, one file each
    table     the terminal                                  export    Markdown, CSV, JSON
    html      the page                                      comparison, plan, run   two runs, a plan, a stored run

Reads an analysis and, for distributions, raw samples. Knows neither the runner nor the load generator and measures nothing.
rich, pandas, jinja2 and plotly are imported only by the functions that need them, so that an import of this package is cheap.
"""

from enginebench.report.export import to_csv, to_json, to_markdown
from enginebench.report.table import render_table

__all__ = ["render_table", "to_csv", "to_json", "to_markdown"]
