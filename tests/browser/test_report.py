"""The HTML report in Chromium: it draws without errors, fits phone and desktop widths, and follows the colour scheme."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.records.run_folder import Run
from enginebench.report.html import write_html

pytestmark = pytest.mark.browser

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def _needed(what: str, found: str | None) -> str:
    """The path of a program. If it is missing, the test is skipped, or fails in CI."""
    if found:
        return found
    message = f"{what} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = _needed("Chromium", shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"))
    driver = _needed("chromedriver", shutil.which("chromedriver"))
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        _needed("selenium (pip install 'enginebench[browser]')", None)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))  # an explicit driver, so that selenium does not fetch one
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def page(synthetic_run: Run, synthetic_analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_html(synthetic_run, synthetic_analysis, tmp_path_factory.mktemp("html") / "report.html")


@pytest.fixture
def opened(browser: Any, page: Path) -> Callable[[int, str], Any]:
    """Opens the page at a width and colour scheme and waits until every plot is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    def open_page(width: int, scheme: str) -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        _prefer(browser, scheme)
        browser.get_log("browser")  # discards messages of an earlier page
        browser.get(page.as_uri())
        WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.documentElement.dataset.drawn") == "all")
        return browser

    return open_page


def _prefer(browser: Any, scheme: str) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})


def _count(browser: Any, selector: str) -> int:
    return int(browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_draws_fits_and_logs_nothing(opened: Callable[[int, str], Any], synthetic_analysis: Analysis, width: int, scheme: str) -> None:
    browser = opened(width, scheme)
    assert _count(browser, ".compare tr.row") == len(synthetic_analysis.rows)
    assert _count(browser, "figure:not([hidden])") > 20
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('figure:not([hidden]) .js-plotly-plot')]"
        ".every(plot => plot.querySelector('.main-svg .scatterlayer path'))"
    )
    assert drawn
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_labels_run_no_script(opened: Callable[[int, str], Any]) -> None:
    browser = opened(1280, "light")  # this call raises if an alert() is open
    assert _count(browser, "script") == 3
    assert "</script><script>alert(1)</script>" in browser.execute_script("return document.querySelector('.compare').textContent")


def test_nothing_but_the_file_is_loaded(opened: Callable[[int, str], Any]) -> None:
    browser = opened(1280, "light")
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def test_plots_follow_the_colour_scheme(opened: Callable[[int, str], Any]) -> None:
    browser = opened(1280, "light")
    color = "return getComputedStyle(document.querySelector('#plot-0 .js-line')).stroke"
    light = browser.execute_script(color)
    _prefer(browser, "dark")
    dark = browser.execute_async_script(f"const done = arguments[0]; setTimeout(() => done((() => {{ {color} }})()), 500)")
    assert light != dark


def test_a_deployment_can_be_hidden_and_streams_chosen(opened: Callable[[int, str], Any]) -> None:
    browser = opened(1280, "light")
    lines = "return document.querySelectorAll('#plot-0 .js-line').length"
    before = browser.execute_script(lines)
    browser.execute_script("document.querySelector('.legend button').click()")
    assert browser.execute_script(lines) == before - 1
    choose = "const s = document.querySelector('#distribution-ttft select'); s.value = '1 stream'; s.dispatchEvent(new Event('change'))"
    browser.execute_script(choose)
    shown = "return [...document.querySelectorAll('#distribution-ttft figure:not([hidden])')].map(f => f.textContent.includes('1 stream'))"
    assert browser.execute_script(shown) == [True] * 4
    assert _count(browser, "#distribution-ttft figure:not([hidden]) .main-svg .scatterlayer path") > 0
    assert browser.get_log("browser") == []
