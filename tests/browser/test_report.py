"""The HTML report in Chromium: nothing is cut from 390 px up, it reads without scripts and on paper, figures live when looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.records.run_folder import Run
from enginebench.report.html import render_html

from .looking import CUT, prefer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(synthetic_run: Run, synthetic_analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("html") / "report.html"
    page.write_text(render_html(synthetic_run, synthetic_analysis), encoding="utf-8")
    return page


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page at a width and colour scheme, with or without scripts."""

    def open_page(width: int, scheme: str, *, scripts: bool = True, file: Path = page) -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        prefer(browser, scheme)
        browser.get_log("browser")  # discards messages of an earlier page
        browser.get(file.as_uri())
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})  # or the test could ask nothing
        return browser

    yield open_page
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def _count(browser: Any, selector: str) -> int:
    return int(browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector))


def _look_at(browser: Any, selector: str, seconds: float = 60) -> None:
    """Scrolls to a figure and waits until the library has drawn it."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
    drawn = "return document.querySelector(arguments[0]).dataset.drawn === 'plotly'"
    WebDriverWait(browser, seconds).until(lambda b: b.execute_script(drawn, selector))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_nothing_is_cut_at_any_width(opened: Callable[..., Any], synthetic_analysis: Analysis, width: int, scheme: str) -> None:
    browser = opened(width, scheme)
    assert _count(browser, ".compare tr.row") == len(synthetic_analysis.rows)
    assert browser.execute_script(CUT) == []
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true); document.querySelector('#ranges').click()")
    assert browser.execute_async_script(f"const done = arguments[0]; setTimeout(() => done((() => {{ {CUT} }})()), 300)") == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1440])
def test_a_figure_is_drawn_when_it_is_looked_at_and_not_before(opened: Callable[..., Any], width: int) -> None:
    browser = opened(width, "light")
    assert browser.execute_script("return typeof Plotly") == "undefined"
    assert _count(browser, "figure.live") == 0
    _look_at(browser, "#ttft-1")
    assert browser.execute_script("return document.querySelectorAll('#ttft-1 .main-svg .scatterlayer path').length") > 3
    assert browser.execute_script("return getComputedStyle(document.querySelector('#ttft-1 .static')).display") == "none"
    assert _count(browser, "figure.live") < 8
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == [], "the policy is not violated"


@pytest.mark.alone
@pytest.mark.clock
def test_the_answer_is_on_screen_within_300_ms(opened: Callable[..., Any]) -> None:
    """The best of three: other programs can only make it slower."""
    first = []
    for _ in range(3):
        browser = opened(1440, "light")
        first.append(
            browser.execute_async_script(
                "const done = arguments[0]; new PerformanceObserver((list, its) => { its.disconnect();"
                " done(list.getEntries()[0].startTime); }).observe({type: 'paint', buffered: true})"
            )
        )
    assert min(first) < 300
    top = browser.execute_script("return document.querySelector('.reg tbody tr').getBoundingClientRect().bottom")
    assert top < 900, "the first regime is on the first screen"


def test_without_scripts_everything_is_there(opened: Callable[..., Any], synthetic_analysis: Analysis) -> None:
    browser = opened(1440, "light", scripts=False)
    assert _count(browser, "html.scripts") == 0
    shown = "return [...document.querySelectorAll('section:not(:has(> details)) figure')].filter(f => f.querySelector('svg.ch')"
    assert browser.execute_script(f"{shown}.getBoundingClientRect().width > 300).length") >= 30
    assert _count(browser, "figure[hidden]") == 0
    assert _count(browser, ".compare tr.row") == len(synthetic_analysis.rows)
    assert browser.execute_script("return document.querySelector('#grid fieldset').getClientRects().length") == 0, (
        "no control without effect"
    )


def test_print_has_the_static_figures_in_light_colours(opened: Callable[..., Any]) -> None:
    browser = opened(1440, "dark")
    _look_at(browser, "#frontier-1")
    prefer(browser, "dark", "print")
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert browser.execute_script(style, "#frontier-1 .static", "display") == "block"
    assert browser.execute_script(style, "#frontier-1 .plot", "display") == "none"
    assert browser.execute_script(style, "body", "backgroundColor") == "rgb(255, 255, 255)"
    shown = "return [...document.querySelectorAll('#frontier figure')].map(f => getComputedStyle(f).display)"
    assert browser.execute_script(shown) == ["block"] * 4, "every context, not only that of the chosen tab"
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(pdf["data"]) > 50_000


def test_labels_run_no_script(opened: Callable[..., Any]) -> None:
    browser = opened(1280, "light")  # this call raises if an alert() is open
    assert _count(browser, "script") == 4
    assert "</script><script>alert(1)</script>" in browser.execute_script("return document.querySelector('.compare').textContent")


def test_nothing_but_the_file_is_loaded(opened: Callable[..., Any]) -> None:
    browser = opened(1280, "light")
    _look_at(browser, "#ttft-1")
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def test_plots_follow_the_colour_scheme(opened: Callable[..., Any]) -> None:
    browser = opened(1280, "light")
    _look_at(browser, "#ttft-1")
    color = "return getComputedStyle(document.querySelector('#ttft-1 .js-line')).stroke"
    light = browser.execute_script(color)
    prefer(browser, "dark")
    dark = browser.execute_async_script(f"const done = arguments[0]; setTimeout(() => done((() => {{ {color} }})()), 500)")
    assert light != dark


def test_a_name_of_the_legend_dims_the_others_in_all_figures(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(1280, "light")
    _look_at(browser, "#ttft-1")
    live = "return [...document.querySelectorAll('#ttft-1 .scatterlayer .trace')].map(t => Number(getComputedStyle(t).opacity) > 0.5)"
    groups = "[...document.querySelectorAll('#throughput-1 .ch g[class^=s]')]"
    still = f"return {groups}.map(g => [g.classList[0], getComputedStyle(g).opacity > 0.5])"
    bright = browser.execute_script(live)
    assert all(bright)
    button = browser.find_element("css selector", ".legend button")
    browser.execute_script("document.activeElement.blur(); document.querySelector('.legend button').focus()")
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "true"
    time.sleep(0.5)
    assert 0 < sum(browser.execute_script(live)) < len(bright)
    assert dict(browser.execute_script(still)) == {f"s{i}": i == 0 for i in range(3)} | {"sn": True}
    browser.find_elements("css selector", ".legend button")[1].click()
    assert dict(browser.execute_script(still)) == {f"s{i}": i < 2 for i in range(3)} | {"sn": True}
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert all(shown for _, shown in browser.execute_script(still))
    assert button.get_attribute("aria-pressed") == "false"
    assert browser.get_log("browser") == []


def test_streams_are_chosen(opened: Callable[..., Any]) -> None:
    browser = opened(1280, "light")
    browser.execute_script("document.querySelector('#distribution-ttft details').open = true")
    choose = "const s = document.querySelector('#distribution-ttft select'); s.value = '1 stream'; s.dispatchEvent(new Event('change'))"
    browser.execute_script(choose)
    shown = "return [...document.querySelectorAll('#distribution-ttft figure:not([hidden])')].map(f => f.textContent.includes('1 stream'))"
    assert browser.execute_script(shown) == [True] * 4
    _look_at(browser, "#distribution-ttft figure:not([hidden])")
    assert browser.get_log("browser") == []


def test_a_shared_link_opens_the_figure(opened: Callable[..., Any], page: Path) -> None:
    browser = opened(1280, "light")
    last = browser.execute_script("return [...document.querySelectorAll('#distribution-itl figure')].at(0).id")
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#{last}")
    place = browser.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().toJSON()", last)
    assert place["height"] > 100
    assert 0 <= place["top"] < 900


def test_contexts_are_chosen_by_keyboard_in_every_section(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(1280, "light")
    tabs = browser.find_elements("css selector", "#ttft [role=tab]")
    assert [tab.get_attribute("aria-selected") for tab in tabs] == ["true", "false", "false", "false"]
    tabs[0].send_keys(Keys.END)
    assert [tab.get_attribute("aria-selected") for tab in tabs] == ["false", "false", "false", "true"]
    assert browser.switch_to.active_element == tabs[-1]
    shown = browser.execute_script("return [...document.querySelectorAll('#frontier figure:not([hidden])')].map(f => f.dataset.tab)")
    assert shown == [tabs[-1].get_attribute("data-tab")]


def test_the_table_is_sorted_by_a_column(opened: Callable[..., Any]) -> None:
    browser = opened(1440, "light")
    rows = "[...document.querySelectorAll('.compare tbody')[0].querySelectorAll('tr.row')]"
    column = f"return {rows}.map(r => r.cells[arguments[0]].firstChild.textContent)"
    heads = browser.execute_script("return [...document.querySelectorAll('.compare thead th')].map(h => h.textContent)")
    assert heads[:2] == ["deployment", "verdict"]
    at = next(i for i, head in enumerate(heads) if head.startswith("output"))
    button = browser.find_elements("css selector", ".compare thead button")[at]
    for direction in ("ascending", "descending"):
        button.click()
        assert browser.execute_script("return document.querySelector('.compare [aria-sort]').getAttribute('aria-sort')") == direction
        values = [float(text.replace(",", "")) for text in browser.execute_script(column, at)[:-2]]
        assert values == sorted(values, reverse=direction == "descending")


def test_limits_recompute_the_grid(opened: Callable[..., Any]) -> None:
    browser = opened(1440, "light")
    grid = "return document.querySelector('.decide .grid').textContent"
    before = browser.execute_script(grid)
    numbers = browser.find_elements("css selector", ".decide input[type=number]")
    for its, value in zip(numbers[:2], ("0.2", "0.2"), strict=True):
        its.clear()
        its.send_keys(value)
    assert (
        browser.execute_script("return [...document.querySelectorAll('.decide')[0].querySelectorAll('td .p')].map(p => p.textContent)")
        == ["none holds"] * 6
    )
    assert "bench report --slo ttft_ms=0.2,tpot_ms=0.2" in browser.execute_script("return document.querySelector('.ruling').textContent")
    browser.execute_script("const r = document.querySelector('.decide input[value=\"\"]'); r.checked = true;"
                           "r.dispatchEvent(new Event('input', {bubbles: true}))")  # fmt: skip
    assert browser.execute_script(grid) == before


def test_a_figure_can_be_saved(opened: Callable[..., Any], tmp_path: Path) -> None:
    browser = opened(1440, "light")
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    for kind, magic in (("svg", b"<svg"), ("png", b"\x89PNG")):
        browser.execute_script("document.querySelector(`#ttft-1 [data-save=${arguments[0]}]`).click()", kind)
        file = tmp_path / f"ttft-1.{kind}"
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert file.read_bytes().startswith(magic)
    assert b"rgb(" in (tmp_path / "ttft-1.svg").read_bytes(), "its colours are in it"


def test_everything_has_a_name_and_a_heading(opened: Callable[..., Any]) -> None:
    """What a screen reader needs: names of controls and figures, one h1, no skipped level, row and column headings."""
    browser = opened(1440, "light")
    nameless = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => !(e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    for selector in ("button", "a", "svg[role=img]", "select", "[role=region]"):
        assert browser.execute_script(nameless, selector) == 0, selector
    levels = browser.execute_script("return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1
    assert (
        browser.execute_script("return [...document.querySelectorAll('main table')].filter(t => !t.querySelector('th[scope]')).length") == 0
    )
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_the_published_page_opens(opened: Callable[..., Any]) -> None:
    for file in sorted((Path(__file__).parents[2] / "reports" / "published").glob("*.html")):
        assert file.stat().st_size < 2_200_000
        browser = opened(390, "light", file=file)
        assert browser.execute_script(CUT) == []
        assert browser.get_log("browser") == []
