"""The page as its readers use it, in a real browser: `python -m pytest -m browser`.

Needs `pip install -e '.[browser]'`, Chromium, and its driver (Debian: `apt-get install chromium chromium-driver`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peergrid.baselines.episode.p2p import Episode, play_episode
from peergrid.baselines.episode.report import write_page
from peergrid.baselines.policies.fixed import Truthful
from peergrid.envs import p2p_trading_v0

pytestmark = pytest.mark.browser

TABS = ("network", "prices", "trades", "batteries", "money")
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def episode() -> Episode:
    env = p2p_trading_v0.parallel_env(scenario="ieee33_communities", max_cycles=5)
    played = play_episode(env, Truthful(), day=0)
    assert played.is_curtailed.any() and played.trade_kw.any()
    return played


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver, "chromium and chromedriver must be on the path"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    yield made
    made.quit()


@pytest.fixture
def show(browser, tmp_path) -> Iterator[Callable[..., Any]]:
    """Open the page of an episode from a file; afterwards nothing may stand in the console."""

    def opened(episode: Episode, width: int = 1280, scheme: str = "light", subtitle: str = "a day") -> Any:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        file: Path = tmp_path / "report.html"
        write_page(episode, file, subtitle)
        browser.get(file.as_uri())
        return browser

    yield opened
    assert browser.get_log("browser") == []


def at(page: Any, name: str) -> Any:
    return page.find_element("id", name)


def press(page: Any, *keys: str) -> None:
    page.switch_to.active_element.send_keys(*keys)


def shown(page: Any) -> list[str]:
    """The panels that can be seen."""
    return [tab for tab in TABS if at(page, tab).is_displayed()]


def cells(page: Any, table: str) -> np.ndarray:
    """The numbers of a table, without its heads; NaN where there is none."""
    rows = page.find_elements("css selector", f"#{table} tbody tr")
    texts = [[cell.text.replace("\N{MINUS SIGN}", "-") for cell in row.find_elements("tag name", "td")] for row in rows]
    return np.array([[np.nan if text == "\N{EN DASH}" else float(text) for text in row] for row in texts])


def test_the_page_opens_from_a_file_and_asks_for_nothing_else(show, episode):
    page = show(episode)
    assert page.current_url.startswith("file://")
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert at(page, "clock").text == "00:00 to 01:00" and shown(page) == ["network"]
    assert len(page.find_elements("css selector", "#map .bus")) == 33


def test_the_slider_changes_the_hour_everywhere(show, episode):
    from selenium.webdriver.common.keys import Keys

    page = show(episode)
    slider = at(page, "time")
    said = at(page, "now").text
    assert slider.get_attribute("max") == "4"
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert at(page, "clock").text == slider.get_attribute("aria-valuetext") == "02:00 to 03:00"
    assert at(page, "now").text != said and f"LMP {episode.lmp_per_kwh[2]:.3f}" in at(page, "now").text
    power = [episode.pv_kw, episode.diesel_kw, episode.battery_kw, episode.consumption_kw, episode.contract_kw]
    power += [episode.proposed_kw, episode.accepted_kw, episode.curtailed_kw]
    np.testing.assert_allclose(cells(page, "network-table")[:, :8], np.stack(power, axis=-1)[2], atol=0.051)


def test_keys_move_through_the_day_and_stop_at_its_ends(show, episode):
    from selenium.webdriver.common.keys import Keys

    page = show(episode)
    for key, clock in (
        (Keys.ARROW_RIGHT, "01:00 to 02:00"),
        (Keys.END, "04:00 to 05:00"),
        (Keys.ARROW_RIGHT, "04:00 to 05:00"),
        (Keys.ARROW_LEFT, "03:00 to 04:00"),
        (Keys.HOME, "00:00 to 01:00"),
        (Keys.ARROW_LEFT, "00:00 to 01:00"),
    ):
        press(page, key)
        assert at(page, "clock").text == clock


def test_tabs_show_one_panel_each_by_pointer_and_by_key(show, episode):
    from selenium.webdriver.common.keys import Keys

    page = show(episode)
    for tab in TABS:
        at(page, f"tab-{tab}").click()
        assert shown(page) == [tab] and at(page, f"tab-{tab}").get_attribute("aria-selected") == "true"
        assert at(page, tab).find_elements("css selector", "svg") and at(page, tab).find_elements("tag name", "table")
    press(page, Keys.ARROW_RIGHT)  # round to the first, as focus is on the last tab; the hour stays
    assert shown(page) == ["network"] and at(page, "clock").text == "00:00 to 01:00"
    press(page, "2")
    assert shown(page) == ["prices"]


def test_play_runs_to_the_end_of_the_day_and_stops(show, episode):
    page = show(episode)
    at(page, "play").click()
    assert at(page, "play").text == "Pause"
    end = time.monotonic() + 20
    while at(page, "play").text == "Pause" and time.monotonic() < end:
        time.sleep(0.1)
    assert at(page, "clock").text == "04:00 to 05:00" and at(page, "play").text == "Play"


def test_a_click_on_a_bus_shows_its_prices(show, episode):
    from selenium.webdriver.support.ui import Select

    page = show(episode)
    page.execute_script("document.querySelectorAll('#map .bus')[20].dispatchEvent(new Event('click', {bubbles: true}))")
    name = episode.params.feeder.bus[20]
    assert shown(page) == ["prices"] and f"at bus {name}, by cause" in at(page, "price-parts").text
    titles = page.find_elements("css selector", "#price-parts .hit title")
    assert len(titles) == 5
    told = titles[3].get_attribute("textContent")
    assert "03:00 to 04:00" in told and f"price: {episode.price_per_kwh[3, 20]:.4f}" in told
    Select(at(page, "bus")).select_by_visible_text("17 (microgrid 0)")
    assert "at bus 17, by cause" in at(page, "price-parts").text


def test_money_adds_up_to_what_the_record_says(show, episode):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    page = show(episode)
    press(page, "5", Keys.END)
    np.testing.assert_allclose(cells(page, "money-table")[:, -1], episode.gain.sum(axis=0), atol=0.0051)
    Select(at(page, "whose")).select_by_index(2)
    assert "microgrid 1 (bus 22)" in at(page, "gain-parts").text


def test_trades_of_the_day_are_those_of_the_record(show, episode):
    page = show(episode)
    press(page, "3")
    shown_kwh = np.nan_to_num(cells(page, "pairs-day"))
    assert shown_kwh.sum() > 1
    np.testing.assert_allclose(shown_kwh, episode.trade_kw.sum(axis=0), atol=0.06)


def test_names_of_users_are_never_run(show, episode):
    feeder = episode.params.feeder
    named = replace(feeder, title=HOSTILE, bus=(feeder.bus[0], HOSTILE, *feeder.bus[2:]))
    page = show(replace(episode, params=replace(episode.params, feeder=named)), subtitle=HOSTILE)
    assert page.find_element("tag name", "h1").text == HOSTILE and page.title != "taken"
    assert page.find_elements("tag name", "img") == []
    for tab in TABS:
        at(page, f"tab-{tab}").click()
    told = page.find_elements("css selector", "#map .bus title")[1].get_attribute("textContent")
    assert HOSTILE in told and page.title != "taken"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
def test_it_fits_screens_and_follows_the_scheme(show, episode, width, scheme):
    page = show(episode, width, scheme)
    colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(colour.removeprefix("rgb(").split(",")[0])
    assert (red < 64) == (scheme == "dark")
    for tab in TABS:
        at(page, f"tab-{tab}").click()
        assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_paper_shows_every_panel_and_the_screen_one_again(show, episode):
    page = show(episode)
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    drawn = page.execute_script(
        "return [...document.querySelectorAll('[role=tabpanel]')].map(p => p.querySelectorAll('svg').length)"
    )
    assert shown(page) == list(TABS) and min(drawn) > 0
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert shown(page) == ["network"]
