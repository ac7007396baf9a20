"""The site of many runs in Chromium: home, a run, the comparison of two; names that would be markup; phone, dark, keyboard, no scripts."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import enginebench
import pytest
from enginebench.records.run_folder import Run
from enginebench.report.columns import column

from ..conftest import HOSTILE  # noqa: TID252  # tests/ is no package
from ..small_runs import small_run  # noqa: TID252
from .looking import CUT, prefer

pytestmark = pytest.mark.browser

RUNS = int(os.environ.get("SITE_RUNS", "30"))
"""`.ci/run` looks at a site of 200 in a step of its own."""
ODD = 'x" onload="alert(1)'


def day(night: int) -> str:
    return f"2026-{1 + night // 28:02d}-{1 + night % 28:02d}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many nights; in the last ten, vllm is 30 % slower. The newest but one run has names that would be markup."""
    folder = tmp_path_factory.mktemp("results")
    made = [
        small_run(folder / f"kind-{i}", "2026-01-01T00:00:00+00:00", slower=slower, streams=(4,)) for i, slower in enumerate((1.0, 1.3))
    ]
    for i in range(RUNS - 1):
        kind = made[i >= RUNS - 10]
        run = Run(Path(shutil.copytree(kind.path, folder / f"night-{i:03d}")))
        run.update(replace(run.record, created_at=f"{day(i)}T02:00:00+00:00"))
    for run in made:
        shutil.rmtree(run.path)
    small_run(folder / ODD, "2026-08-27T02:00:00+00:00", name=HOSTILE, title=HOSTILE, label=HOSTILE, streams=(4,))
    newest = Run(folder / f"night-{RUNS - 2:03d}")
    newest.update(replace(newest.record, created_at="2026-08-28T02:00:00+00:00"))
    return folder


@pytest.fixture(scope="module")
def site(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return enginebench.build_site(results, tmp_path_factory.mktemp("www") / "deep" / "site").path


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Of the site below a path of its server, as on GitHub Pages."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.parents[1])))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/deep/site"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens a page of the site and waits until its scripts have run. base: where the site is."""

    def open_page(page: str, width: int = 1280, scheme: str = "light", *, scripts: bool = True, base: str = address) -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        prefer(browser, scheme)
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get(f"{base}/{page}")
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        if scripts:
            wait(browser, "return Boolean(document.documentElement.dataset.ready) || !document.querySelector('#problem')?.hidden")
        return browser

    yield open_page
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def wait(browser: Any, script: str, seconds: float = 30) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds).until(lambda its: its.execute_script(script))


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def test_home_shows_the_newest_answer_the_trend_and_every_run(opened: Callable[..., Any], results: Path) -> None:
    browser = opened("index.html")
    newest = enginebench.open_run(results / f"night-{RUNS - 2:03d}")
    assert text(browser, "h1").strip() == newest.conclusion.sentence
    assert browser.execute_script("return document.querySelectorAll('#list tbody tr').length") == RUNS
    drawn = "return [...document.querySelectorAll('#scenario-1 svg.wide .l, #scenario-1 svg.wide .g0')].map(l => l.getBBox().width)"
    axis, *lines = browser.execute_script(drawn)
    assert len(lines) == 2, "one for each deployment"
    assert all(0.9 < width / axis < 1 for width in lines), "from the first night to the last"
    assert browser.execute_script("return document.querySelector('#scenario-1 figure svg.wide').getBoundingClientRect().width") > 400
    assert browser.get_log("browser") == []
    names = browser.execute_script("return performance.getEntriesByType('resource').map(e => new URL(e.name).pathname.split('/').at(-2))")
    assert set(names) == {"assets"}


def test_home_names_what_changed_and_when(opened: Callable[..., Any]) -> None:
    browser = opened("index.html")
    (change,) = browser.execute_script("return [...document.querySelectorAll('#scenario-1 .caveats li')].map(l => l.textContent)")
    assert change.startswith(f"worse: {day(RUNS - 10)} vllm tok/s ")
    assert ", -23 %" in change


def test_a_run_page_opens_from_home_and_draws_with_the_shared_library(opened: Callable[..., Any]) -> None:
    browser = opened("index.html")
    browser.find_element("css selector", "#answer a").click()
    wait(browser, "return document.documentElement.dataset.ready === 'page' && document.querySelector('#ttft-1')")
    browser.execute_script("document.querySelector('#ttft-1').scrollIntoView({block: 'center'})")
    wait(browser, "return document.querySelector('#ttft-1').dataset.drawn === 'plotly'", 60)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => new URL(e.name).pathname)")
    assert sum("/assets/library-" in name for name in loaded) == 1
    assert browser.get_log("browser") == [], "the policy is not violated"
    browser.find_element("css selector", "nav.site a").click()
    wait(browser, "return document.querySelector('#list') !== null")


def test_the_browser_compares_as_the_command_does(opened: Callable[..., Any], results: Path) -> None:
    base, candidate = "night-000", f"night-{RUNS - 2:03d}"
    browser = opened(f"compare.html#base={base}&candidate={candidate}")
    browser.find_element("css selector", "#all").click()
    wait(browser, "return document.documentElement.dataset.ready === 'compared'")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#pairs tbody tr')].map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    found = enginebench.compare(results / base, results / candidate)
    figures = [(pair, figure) for pair in found.pairs.pairs for figure in pair.figures.values()]
    assert len(rows) == len(figures) > 30
    words = {"alike": "~", "unknown": "?", "unsure": "? every restart agrees, too few to be sure"}
    for row, (_, figure) in zip(rows, figures, strict=True):
        change = figure.change
        assert row[0].startswith(column(figure.name).label)
        assert row[-1] == words.get(figure.verdict, figure.verdict), row
        assert float(row[-3]) == pytest.approx(change.p, rel=0.06)
        plain = row[3].translate({0x2212: "-", 0x2013: None, ord("+"): None, ord("%"): None}).replace(" to ", " ")
        numbers = [float(each) for each in plain.split()]
        expected = [] if change.relative is None else [100 * its for its in (change.relative, change.low, change.high) if its is not None]
        assert numbers == pytest.approx(expected, abs=0.051)
    verdicts = [figure.verdict for _, figure in figures]
    assert "worse" in verdicts
    assert "alike" in verdicts
    assert f"{verdicts.count('worse')} worse" in text(browser, "h1")


def test_two_runs_are_chosen_by_keyboard_and_the_address_follows(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened("index.html")
    boxes = browser.find_elements("css selector", "#list input[data-run]")
    for box in boxes[1:3]:
        box.send_keys(Keys.SPACE)
    link = browser.find_element("css selector", "#chosen a")
    link.send_keys(Keys.ENTER)
    wait(browser, "return document.documentElement.dataset.ready === 'compared'")
    sides = "return [document.querySelector('#base').value, document.querySelector('#candidate').value]"
    base, candidate = browser.execute_script(sides)
    assert (base, candidate[:2]) == (f"night-{RUNS - 3:03d}", "x-"), "the older one is the base"
    browser.find_element("css selector", "#base").send_keys("night · 2026-01-01")
    wait(browser, "return document.documentElement.dataset.ready === 'compared'")
    assert "base=night-000" in browser.current_url
    browser.find_element("css selector", "#swap").send_keys(Keys.ENTER)
    wait(browser, "return location.hash.includes('candidate=night-000')")


def test_the_list_is_filtered(opened: Callable[..., Any]) -> None:
    browser = opened("index.html")
    browser.find_element("css selector", "#filter").send_keys("2026-01-0")
    assert text(browser, "#count") == f"9 of {RUNS}"
    assert browser.execute_script("return document.querySelectorAll('#list tbody tr:not([hidden])').length") == 9


@pytest.mark.parametrize("width", [390, 1024, 1440])
@pytest.mark.parametrize("page", ["index.html", f"compare.html#base=night-000&candidate=night-{RUNS - 5:03d}", "runs/night-000.html"])
def test_nothing_is_cut(opened: Callable[..., Any], page: str, width: int) -> None:
    browser = opened(page, width, "dark")
    for scheme, background in (("dark", "rgb(21, 23, 26)"), ("light", "rgb(255, 255, 255)")):
        prefer(browser, scheme)
        assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == background
        assert browser.execute_script(CUT) == []
    assert browser.get_log("browser") == []


def test_names_run_no_script(opened: Callable[..., Any], site: Path) -> None:
    (odd,) = (file.stem for file in (site / "runs").glob("x-*.html"))
    for page in ("index.html", f"runs/{odd}.html", f"compare.html#base={odd}&candidate={odd}"):
        browser = opened(page)  # this call raises if an alert() is open
        assert HOSTILE in text(browser, "main") or HOSTILE in browser.execute_script("return document.querySelector('main').innerText")
        assert browser.execute_script("return [...document.querySelectorAll('main script, [onload]')].length") == 0
        assert browser.get_log("browser") == []


def test_home_and_a_run_can_be_read_without_scripts(opened: Callable[..., Any]) -> None:
    browser = opened("index.html", scripts=False)
    assert browser.execute_script("return document.querySelectorAll('#list tbody tr').length") == RUNS
    assert browser.execute_script("return document.querySelector('#scenario-1 svg.wide').getBoundingClientRect().width") > 400
    assert browser.execute_script("return document.querySelector('#filter').getClientRects().length") == 0, "no control without effect"
    browser = opened("runs/night-000.html", scripts=False)
    assert browser.execute_script("return document.querySelectorAll('.compare tr.row').length") == 2
    browser = opened("compare.html", scripts=False)
    assert "bench compare BASE CANDIDATE" in text(browser, "main")


def test_files_open_from_a_folder(opened: Callable[..., Any], site: Path) -> None:
    browser = opened("index.html", base=site.as_uri())
    assert browser.execute_script("return document.querySelectorAll('#list tbody tr').length") == RUNS
    browser = opened("runs/night-000.html", base=site.as_uri())
    browser.execute_script("document.querySelector('#ttft-1').scrollIntoView({block: 'center'})")
    wait(browser, "return document.querySelector('#ttft-1').dataset.drawn === 'plotly'", 60)
    browser = opened("compare.html", base=site.as_uri())
    assert "through a web server" in text(browser, "#problem")


def test_everything_has_a_name_and_a_heading(opened: Callable[..., Any]) -> None:
    named = "e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()"
    nameless = f"return [...document.querySelectorAll(arguments[0])].filter(e => !({named})).length"
    for page in ("index.html", "compare.html"):
        browser = opened(page)
        for selector in ("button", "a", "svg[role=img]", "select", "input", "[role=region]"):
            assert browser.execute_script(nameless, selector) == 0, selector
        assert browser.execute_script("return document.querySelectorAll('h1').length") == 1
        assert (
            browser.execute_script("return [...document.querySelectorAll('main table')].filter(t => !t.querySelector('th[scope]')).length")
            == 0
        )
