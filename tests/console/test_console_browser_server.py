"""The console in a real browser: every page in both themes and on a phone, keys, axe-core, and a server that goes away.

Screenshots of every page are kept in ``HEADWATER_ARTEFACTS`` (by default ``build/screens``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from headwater.streams.cards import Card
from headwater.streams.names import changelog_topic
from headwater.streams.runner.account import PICTURE, Figures, Told, figures_key, picture
from headwater.streams.runner.remains import JOB

CHROMIUM = shutil.which("chromium")
# Where tests decide what lands, a missing browser is a failure; on a laptop it is a reason to pass over these.
if CHROMIUM is None and "HYPOTHESIS_PROFILE" not in os.environ:
    pytest.skip("There is no chromium on PATH; scripts/browser installs Debian's.", allow_module_level=True)

pytestmark = [pytest.mark.servers, pytest.mark.xdist_group("browser")]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = {
    "overview": "",
    "topics": "/topics",
    "topic": "/topics/flights",
    "messages": "/topics/flights/messages?from=earliest",
    "wrong": "/topics/flights/messages?where=colour+%3D%3D+1",
    "groups": "/groups",
    "group": "/groups/dashboards",
    "transactions": "/transactions",
    "streams": "/streams",
    "stream": "/streams/delays",
    "commits": "/commits",
    "commit": "/commits/3",
    "storage": "/storage?count=1",
    "missing": "/topics/nothing",
    "past": "/as-of/3/topics/flights",
}
HEADWATER = [sys.executable, "-m", "headwater.cli.main"]
SCREENS = Path(os.environ.get("HEADWATER_ARTEFACTS", "build/screens"))


def headwater(store: Path, *words: str, sent: str = "") -> None:
    command = [*HEADWATER, *words, "--store", f"file://{store}"]
    ran = subprocess.run(command, input=sent.encode(), capture_output=True, check=False)
    assert 0 == ran.returncode, ran.stderr


def rows(count: int) -> str:
    carriers = ("UA", "AA", "B6", "DL")
    flights = (
        {"flight": n, "carrier": carriers[n % 4], "origin": "JFK", "dep_delay": n % 40 - 5, "note": "<b>late</b>"}
        for n in range(count)
    )
    return "".join(f"{row['carrier']}:{json.dumps(row)}\n" for row in flights)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """``headwater dev`` over a store with some flights in it."""
    store = tmp_path_factory.mktemp("console") / "store"
    headwater(store, "topic", "create", "flights", "--partitions", "2")
    headwater(store, "produce", "flights", "--key-separator", ":", sent=rows(300))
    headwater(store, "consume", "flights", "--group", "dashboards", "--offset", "beginning", "--limit", "20")
    told = Figures(at_ms=9_000, since_ms=1_000, operators={"flights": Told(rows_in=300, watermark=8_000)})
    nodes = [Card(name="flights", kind="Source", shape="topic"), Card(name="hours", kind="Sum", parents=("flights",))]
    configs = {JOB: "delays", PICTURE: picture(nodes), figures_key(0): msgspec.json.encode(told).decode()}
    options = [word for name, value in configs.items() for word in ("--config", f"{name}={value}")]
    headwater(store, "topic", "create", changelog_topic("delays"), *options)
    command = [*HEADWATER, "dev", "--port", "0", "--json", "--store", f"file://{store}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            yield f"{url}/console", process, store
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose console says nothing: no refused script, no missing file, no mistake of ours."""
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    # A page that is a refusal is one that the browser calls a failed load, and one test pulls the cable.
    assert [] == [line for line in said if not re.search(r"status of 4\d\d|ERR_INTERNET_DISCONNECTED", line)]


def shoot(page: Page, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_both_themes_and_on_a_phone(name: str, page: Page, served: tuple[str, Any, Any]) -> None:
    url = served[0] + PAGES[name]
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.goto(url)
        shoot(page, f"{name}-{theme}")
        # Of a dark page only the colours are others.
        found = Axe().run(page, options=None if theme == "light" else {"runOnly": ["color-contrast"]})
        serious = [
            (rule["id"], node["target"], node["failureSummary"])
            for rule in found.response["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
        assert [] == serious
    page.set_viewport_size({"width": 390, "height": 844})
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    shoot(page, f"{name}-phone")
    assert 0 == wide


def test_everything_can_be_reached_by_keys(page: Page, served: tuple[str, Any, Any]) -> None:
    page.goto(served[0])
    page.keyboard.press("Tab")
    assert "Skip to the content" == page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    assert "main" == page.evaluate("document.activeElement.id")
    for key, title in (("t", "Topics"), ("g", "Groups"), ("c", "Commits"), ("s", "Storage"), ("o", "Overview")):
        page.keyboard.press("g")
        with page.expect_navigation():
            page.keyboard.press(key)
        assert title == page.locator("h1").inner_text()
    page.goto(served[0] + "/topics")
    page.keyboard.press("/")
    page.keyboard.type("fli")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith("q=fli&sort=name")
    page.locator("h1").click()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()


def test_the_theme_that_was_chosen_stays(page: Page, served: tuple[str, Any, Any]) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(served[0])
    page.locator("#theme").click()
    assert "dark" == page.locator("html").get_attribute("data-theme")
    page.goto(served[0] + "/topics")
    assert "dark" == page.locator("html").get_attribute("data-theme")


def test_what_is_sent_is_followed_live_and_a_lost_connection_is_told(
    page: Page, served: tuple[str, subprocess.Popen[bytes], Path]
) -> None:
    url, _, store = served
    page.goto(f"{url}/topics/flights/messages?partition=0")
    page.locator("#tail").click()
    page.locator("#tail-state", has_text="Following").wait_for()
    headwater(store, "produce", "flights", "--partition", "0", sent='{"new": "one"}\n')
    page.locator("article", has_text='"new":"one"').wait_for()
    page.context.set_offline(True)
    page.locator("#tail-state", has_text="Connection lost").wait_for()
    page.context.set_offline(False)
    page.locator("#tail-state", has_text="Following").wait_for()


def test_a_page_is_looked_at_as_of_a_commit_and_the_way_back_is_one_click(
    page: Page, served: tuple[str, Any, Any]
) -> None:
    page.goto(served[0] + "/topics")
    page.locator("footer input[name=at]").fill("1")
    page.locator("footer button").click()
    page.wait_for_url("**/console/as-of/1/topics")
    assert "This is the past: commit 1" in page.locator(".past").inner_text()
    page.locator("main a", has_text="flights").click()
    page.wait_for_url("**/console/as-of/1/topics/flights")
    assert "0" == page.locator(".tile b").first.inner_text()
    assert 0 == page.locator("button.danger").count()
    page.locator("a", has_text="Back to now").click()
    page.wait_for_url("**/console/topics/flights")
    assert 1 == page.locator("button.danger").count()


def test_a_reset_shows_what_it_will_do_before_it_does_it(page: Page, served: tuple[str, Any, Any]) -> None:
    page.goto(served[0] + "/groups/dashboards")
    page.locator("summary", has_text="Reset offsets").click()
    page.locator("button", has_text="Show what will happen").click()
    assert "will be read again" in page.locator("main").inner_text()
    shoot(page, "reset-light")
    page.locator("button.danger").click()
    page.wait_for_url("**/groups/dashboards")
    behind = page.locator(".tile b").first.inner_text()
    page.goto(served[0] + "/topics/flights")
    assert behind == page.locator(".tile b").first.inner_text()


def test_the_value_of_a_record_is_copied_by_a_key(page: Page, served: tuple[str, Any, Any]) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(served[0] + "/topics/flights/messages?from=earliest")
    value = page.locator("article [data-value] pre").first
    value.focus()
    page.keyboard.press("c")
    page.locator("article button", has_text="Copied").wait_for()
    assert value.inner_text() == page.evaluate("navigator.clipboard.readText()")
