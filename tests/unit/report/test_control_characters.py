"""What a server returns controls neither a terminal nor a page: ANSI escapes, C1 codes, bidi overrides and NUL are escaped everywhere."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.adapter import Difference
from enginebench.analysis.analysis import analyse
from enginebench.analysis.comparison import compare_runs
from enginebench.domain.formatting import printable, printable_json
from enginebench.records.run_folder import Run
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.comparison import Comparison
from enginebench.report.html import render_html, script_json

HOSTILE = "a\x1b[31mb\x9b2Jc\u202ed\u2066e\x00f\x07g\x7fh\u2028i"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def hostile(synthetic_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every text that comes from a server or its log is hostile, and one deployment has a hostile name."""
    cells = [cell for cell in synthetic_run.cells() if cell.repeat == 0]
    launches = synthetic_run.launches()
    record = replace(synthetic_run.record, cells=tuple(cell.id for cell in cells), machine={"cpu": HOSTILE, HOSTILE: [HOSTILE]})
    run = Run.create(tmp_path_factory.mktemp("hostile") / "run", record, "")
    for i, cell in enumerate(cells):
        deployment = replace(cell.deployment, label=HOSTILE) if cell.deployment.engine == "vllm" else cell.deployment
        hurt = replace(cell, deployment=deployment, counters=replace(cell.counters, totals={HOSTILE: 1.0}))
        if i % 7 == 0:
            hurt = replace(hurt, status="failed", reason=HOSTILE, log_tail=(HOSTILE, "the end"))
        run.add_cell(hurt, synthetic_run.samples(cell.id) if hurt.status == "ok" else None)
        launch = launches[cell.launch_id]
        resolved = {**launch.configuration.resolved, "version": HOSTILE, "kv_dtype": HOSTILE, "raw": {HOSTILE: HOSTILE}}
        configuration = replace(launch.configuration, resolved=resolved, differences=(Difference("slots", HOSTILE, HOSTILE),))
        startup = replace(launch.startup, identity=HOSTILE, container={"image": HOSTILE})
        run.add_launch(replace(launch, deployment=deployment, startup=startup, configuration=configuration, ended=HOSTILE))
    return run


def test_no_control_character_reaches_a_reader(hostile: Run, tmp_path: Path) -> None:
    analysis = analyse(hostile)
    compared = Comparison(compare_runs(analysis, analysis))
    outputs = {
        "table": render_table(analysis, width=200, color=False), "narrow": render_table(analysis, width=60, color=False),
        "csv": to_csv(analysis), "json": to_json(analysis), "markdown": to_markdown(analysis), "compare": compared.to_text(),
        "compare markdown": compared.to_markdown(),
    }  # fmt: skip
    for name, text in outputs.items():
        assert not CONTROL.search(text), name
        assert "a\\x1b" in text or "a\\u001b" in text or "a\\\\x1b" in text, name
    assert any(HOSTILE in cell["reason"] for row in json.loads(outputs["json"])["rows"] for cell in row["cells"] if cell["reason"])
    assert any("a\\x1b[31mb\\x9b2J" in field for line in csv.reader(io.StringIO(outputs["csv"])) for field in line)


def test_no_control_character_reaches_the_page_or_its_plots(hostile: Run) -> None:
    page = render_html(hostile, analyse(hostile))
    ours = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)  # the library's own source, and the data of the plots
    assert not CONTROL.search(ours)
    assert "a\\x1b[31mb\\x9b2Jc\\u202ed" in ours
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert not CONTROL.search(str(json.loads(data[1])))


def test_escaping_keeps_what_it_may() -> None:
    assert printable("tab\there\n", "\n\t") == "tab\there\n"
    assert printable("häßlich · 模型 🚀") == "häßlich · 模型 🚀"
    assert json.loads(printable_json(json.dumps({"a": HOSTILE + "🚀\U000e0001"}, ensure_ascii=False))) == {"a": HOSTILE + "🚀\U000e0001"}
    assert json.loads(script_json({"a": "\x1b\u202e"})) == {"a": "\\x1b\\u202e"}
