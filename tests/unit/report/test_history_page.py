"""The page of many nights: one file without scripts, with a chart of every series, in which no text of a run is markup."""

from __future__ import annotations

from pathlib import Path

import enginebench as eb
import numpy as np
import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import Deployment

from ...conftest import HOSTILE  # noqa: TID252  # tests are no package that has a name
from ..analysis.nightly_runs import LOAD, Nightly, store  # noqa: TID252


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    place = tmp_path_factory.mktemp("nights")
    for i in range(20):
        rows = []
        for name, factor in ((f"x{HOSTILE}", 0.9 if i >= 10 else 1.0), ("steady", 1.0)):
            served = Deployment("vllm", name, "bf16", "hf:m")
            values = 500 * factor * np.exp(0.005 * rng.standard_normal(2))
            rows.append((served, LOAD, {"output_throughput": values.tolist()}))
        store(place, Nightly(rows, i, version="1" if i < 10 else HOSTILE))
    return place


def test_the_page(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "history.html"
    outcome = CliRunner().invoke(bench, ["history", str(folder), "--html", str(file)], standalone_mode=False)
    assert outcome.exception is None
    page = file.read_text()
    assert "<script" not in page.lower()
    assert "default-src &#39;none&#39;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<figure") == 2
    assert page.count('<svg class="ch wide"') == page.count('<svg class="ch narrow"') == 2
    assert "on 2026-09-11" in page
    assert page.index("<figure") < page.index("Show the figures") < page.rindex("<figure")


def test_the_same_from_python(folder: Path) -> None:
    assert "What changed" in eb.history(folder).to_html()
