"""What a person reads: the terminal table, Markdown, CSV, JSON and the HTML page, all from one `Analysis`.

    figures  which figures are shown, in which unit, how a number is written     layout   the table's content, once for all outputs
    table    the terminal       export  Markdown, CSV, JSON                       html     the page (plots, distributions, provenance)

Reads an analysis and, for distributions, the raw samples. Knows neither the runner nor the load generator and measures nothing.
rich, pandas, jinja2 and plotly are imported by the functions that need them, and the page by those who want one, so that naming this
package costs little.
"""

from enginebench.report.export import to_csv, to_json, to_markdown
from enginebench.report.table import render_table

__all__ = ["render_table", "to_csv", "to_json", "to_markdown"]
