"""The website of this repository in a browser: every page loads without an error, and what is clicked works.

Needs the extra `browser` (`pip install playwright`) and a Chromium of the system: none is fetched.
"""

from __future__ import annotations

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from site_pages import Page, lost, read_site

pytest.importorskip("latex2mathml", reason="the extra `site` is not installed")
pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")

from playwright.sync_api import sync_playwright

from beft.reproduce.website.build import build

BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
if BROWSER is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)

# No sandbox: it cannot be had in a container, and the pages are our own. The rest keeps the browser off the network.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
# The images that do not show, and the formulas that are not laid out as formulas.
FAULTS = """async () => {
  const faults = [];
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    if (!image.complete || image.naturalWidth === 0) faults.push(`image ${image.src}`);
    if (!image.alt) faults.push(`no alternative text for ${image.src}`);
  }
  for (const math of document.querySelectorAll("main math")) {
    const shown = math.checkVisibility();
    if (shown && math.getBoundingClientRect().width === 0) faults.push(`formula ${math.getAttribute("alttext")}`);
  }
  for (const low of document.querySelectorAll("main msub")) {
    const [base, index] = [...low.children].map((child) => child.getBoundingClientRect());
    if (low.checkVisibility() && index.bottom <= base.bottom) faults.push(`index of ${low.textContent} is not low`);
  }
  return faults;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the committed profile, made anew."""
    return build(folder=tmp_path_factory.mktemp("pages") / "site")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return read_site(site)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab; that no error was logged and nothing asked for elsewhere is checked when it closes."""
    tab, faults = chromium.new_page(), []
    tab.on("console", lambda message: message.type in ("error", "warning") and faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    # Aborted: the icon of a page that is left at once.
    tab.on("requestfailed", lambda r: r.failure == "net::ERR_ABORTED" or faults.append(f"failed: {r.url}"))
    here = ("file:", "data:", "http://127.0.0.1:")
    tab.on("request", lambda request: request.url.startswith(here) or faults.append(f"asked for: {request.url}"))
    yield tab
    tab.close()
    assert faults == []


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    assert len(pages) > 20 and lost(site, pages) == []


def test_every_page_loads_with_its_images_and_formulas(site: Path, pages: dict[str, Page], tab: Any) -> None:
    faults, formulas = [], 0
    for address in pages:
        tab.goto((site / address).as_uri())
        faults += [f"{address}: {fault}" for fault in tab.evaluate(FAULTS)]
        formulas += sum(tag == "math" for tag, _ in pages[address].tags)
    assert faults == [] and formulas > 50


def test_the_table_of_runs_sorts_and_filters(site: Path, tab: Any) -> None:
    tab.goto((site / "runs.html").as_uri())
    heads = tab.locator("#runs thead th").all_inner_texts()
    column, method = heads.index("final score") + 1, heads.index("method") + 1
    cells = f"#runs tbody tr td:nth-child({column})"
    button = tab.locator(f"#runs thead th:nth-child({column}) button")
    for descending in (False, True):
        button.click()
        texts = tab.locator(cells).all_inner_texts()
        numbers = [float(text) for text in texts if text != "\u2013"]
        assert len(numbers) > 2 and numbers == sorted(numbers, reverse=descending)
        assert texts[len(numbers) :] == ["\u2013"] * (len(texts) - len(numbers))  # what is missing comes last
    tab.locator(".filter input").fill("b_v sst2")
    shown = tab.locator(f"#runs tbody tr:not([hidden]) td:nth-child({method})").all_inner_texts()
    assert 0 < len(shown) < len(texts) and {re.split(r"[:\[]", text)[0] for text in shown} == {"b_v"}
    tab.locator("#runs tbody tr:not([hidden]) a").first.click()
    assert tab.locator("h1").inner_text().startswith("Record ")


@pytest.mark.parametrize("address", ["index.html", "notebooks/01_expressiveness.html", "figures.html"])
def test_the_search_finds_a_word_from_every_page(site: Path, tab: Any, address: str) -> None:
    tab.goto((site / address).as_uri())
    tab.keyboard.press("/")
    tab.keyboard.type("kendall tau")
    tab.wait_for_selector(".found a")
    assert "kendall" in tab.locator(".found mark").first.inner_text().lower()
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelector('main').innerText.includes('Kendall')")  # of the page that it opens
    tab.locator(".search input").fill("nosuchword")
    tab.wait_for_function("document.querySelector('.found').textContent === '0 places'")


@pytest.mark.parametrize("address", ["index.html", "notebooks/03_fine_tuning.html", "figures.html", "runs.html"])
def test_a_page_fits_a_phone_and_has_its_menu(site: Path, tab: Any, address: str) -> None:
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto((site / address).as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert not tab.locator("nav").is_visible()
    tab.locator("button.menu").click()
    assert tab.locator("nav").is_visible() and tab.locator("button.menu").get_attribute("aria-expanded") == "true"


def test_light_and_dark_are_the_readers_choice_and_stay(site: Path, tab: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.emulate_media(color_scheme="dark")
    tab.goto((site / "index.html").as_uri())
    dark = tab.evaluate(ground)
    tab.locator("button.theme").click()
    light = tab.evaluate(ground)
    assert light == "rgb(255, 255, 255)" != dark
    tab.goto((site / "runs.html").as_uri())
    assert tab.evaluate(ground) == light


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_it_works_below_a_path_of_a_web_host(site: Path, tab: Any) -> None:
    handler = functools.partial(_Quiet, directory=str(site.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab.goto(f"http://127.0.0.1:{server.server_port}/site/figures.html")
        assert tab.evaluate(FAULTS) == []
        tab.locator(".search input").fill("kendall")
        tab.locator(".found a").first.click()
        assert "/site/" in tab.url and "Kendall" in tab.locator("main").inner_text()
        server.shutdown()
