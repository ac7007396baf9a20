"""`bench view` in Chromium while a run goes on: it appears without a reload, its cells as they end, and then its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import HOSTILE  # noqa: TID252  # tests/ is no package
from ..engine.bench import Bench  # noqa: TID252
from ..small_runs import small_run  # noqa: TID252
from .looking import CUT, prefer

pytestmark = pytest.mark.browser


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def address(bench: Bench) -> Iterator[str]:
    """Of `bench view results`, with one run from before."""
    small_run(bench.folder / "results" / "before", "2026-01-01T00:00:00+00:00", streams=(4,), label=HOSTILE)
    process = bench.start("view", "results")
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.communicate()
    assert process.returncode == 0


def wait(browser: Any, script: str, seconds: float = 60) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda its: its.execute_script(script))


def show(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    prefer(browser, scheme)


def test_a_run_is_followed_from_its_start_to_its_report(browser: Any, bench: Bench, address: str) -> None:
    show(browser, 390, "dark")
    browser.get(address)
    browser.get_log("browser")
    wait(browser, "return document.querySelector('h1').textContent.includes('llamacpp')")  # read meanwhile, without a reload
    browser.execute_script("window.sameDocument = true")
    run = bench.start("run", bench.scenario("options: {ttft_ms: 30, itl_ms: 60}", repeats=4), "--no-html")
    try:
        wait(browser, "return document.querySelector('#running a')")
        assert browser.execute_script("return window.sameDocument"), "without a reload"
        assert "demo is going on" in browser.execute_script("return document.querySelector('#running').innerText")
        assert browser.execute_script(CUT) == []
        browser.execute_script("document.querySelector('#running a').click()")
        wait(browser, "return document.querySelector('#now') && document.documentElement.dataset.ready")
        browser.execute_script("window.sameDocument = true")
        wait(browser, "return /of 8 requests.*tok.s/.test(document.querySelector('#so-far')?.textContent ?? '')")
        counts = set()
        for _ in range(3):
            seen = browser.execute_script("return document.querySelectorAll('#list tbody tr').length")
            wait(browser, f"return document.querySelectorAll('#list tbody tr').length > {seen}")
            counts.add(browser.execute_script("return document.querySelectorAll('#list tbody tr').length"))
        assert len(counts) == 3
        assert browser.execute_script("return window.sameDocument")
        assert "tok/s" in browser.execute_script("return document.querySelector('#list td.text').textContent")
        for width, scheme in ((390, "light"), (1024, "dark"), (1440, "light")):
            show(browser, width, scheme)
            assert browser.execute_script(CUT) == []
    finally:
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    wait(browser, "return location.pathname.includes('/runs/') && document.querySelectorAll('.compare tr.row').length === 2")
    browser.find_element("css selector", "nav.site a").click()
    wait(browser, "return document.querySelectorAll('#list tbody tr').length === 2")
    wait(browser, "return document.querySelector('#answer').textContent.includes('demo')")
    assert browser.execute_script("return document.querySelector('#running').children.length") == 0
    assert [its for its in browser.get_log("browser") if "favicon" not in its["message"]] == []


def test_focus_and_choices_stay_when_the_list_changes(browser: Any, bench: Bench, address: str) -> None:
    show(browser, 1280, "light")
    browser.get(address)
    wait(browser, "return document.querySelector('#answer').textContent.includes('llamacpp')")
    browser.execute_script("document.querySelector('#list input[data-run=before]').focus()")
    browser.find_element("css selector", "#list input[data-run=before]").send_keys(" ")
    small_run(bench.folder / "results" / "after", "2026-02-01T00:00:00+00:00", streams=(4,))
    wait(browser, "return document.querySelectorAll('#list tbody tr').length === 2")
    assert browser.execute_script("return document.activeElement.dataset.run") == "before"
    assert browser.execute_script("return document.querySelector('#list input[data-run=before]').checked")
    browser.find_element("css selector", "#list input[data-run=after]").send_keys(" ")
    browser.find_element("css selector", "#chosen a").click()
    wait(browser, "return document.documentElement.dataset.ready === 'compared'")
    assert "2 loads paired" in browser.execute_script("return document.querySelector('h1').textContent")
