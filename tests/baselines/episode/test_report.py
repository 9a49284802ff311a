from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from PIL import Image
from rich.console import Console

from peergrid.baselines import run_policy
from peergrid.baselines.entry import TABLE_WIDTH
from peergrid.baselines.episode.p2p import PARTS, Episode, play_episode
from peergrid.baselines.episode.report import PAGE, page, page_data, write_page
from peergrid.baselines.policies.fixed import Truthful
from peergrid.envs import p2p_trading_v0

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\u2028\"'&{{data}}"
VOID = {"meta", "input", "br", "img", "link", "hr"}


def played(scenario: str, intervals: int) -> Episode:
    env = p2p_trading_v0.parallel_env(scenario=scenario, max_cycles=intervals)
    return play_episode(env, Truthful(), day=0)


@pytest.fixture(scope="module")
def episode():
    return played("ieee33_communities", 3)


def with_names(episode: Episode, name: str) -> Episode:
    """The episode on a feeder of that name and title, whose second bus is called so too."""
    feeder = episode.params.feeder
    named = replace(feeder, name=name, title=name, bus=(feeder.bus[0], name, *feeder.bus[2:]))
    return replace(episode, params=replace(episode.params, feeder=named))


class Reader(HTMLParser):
    """Checks that elements are nested, and gathers what tests ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def data_of(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_the_page_is_well_formed_and_its_references_lead_to_elements(episode):
    reader = read(page(episode, "a day"))
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 20
    pointed = [value for name, value in reader.attributes if name in ("for", "aria-controls", "aria-labelledby")]
    script = (PAGE / "script.js").read_text(encoding="utf-8")
    asked = re.findall(r'byId\("([a-z-]+)"\)|fill(?:Grid)?\("([a-z-]+)"', script)
    assert {*pointed, *(a or b for a, b in asked)} - {"tab-"} <= set(ids)
    assert "{{" not in page(episode, "a day")


def test_the_page_needs_nothing_from_elsewhere(episode):
    text = page(episode, "a day")
    assert {name for name, _ in read(text).attributes} & {"src", "href", "action", "onclick"} == set()
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text and "@import" not in text and "innerHTML" not in text


def test_the_page_holds_every_interval_as_it_was(episode):
    data = data_of(page(episode, "a day"))
    assert data["hours"] == ["00:00 to 01:00", "01:00 to 02:00", "02:00 to 03:00"]
    np.testing.assert_allclose(data["voltage"], episode.voltage_pu, atol=1e-5)
    np.testing.assert_allclose(data["flow"], episode.flow_kw, atol=0.05)
    np.testing.assert_allclose(data["accepted"], episode.accepted_kw, atol=0.01)
    np.testing.assert_allclose(data["stored"], episode.stored_kwh, atol=0.01)
    parts = sum(np.array(data["parts"][part]) for part in PARTS)
    np.testing.assert_allclose(parts, episode.price_per_kwh, atol=5e-5)
    np.testing.assert_allclose(sum(np.array(part) for part in data["money"].values()), episode.gain, atol=1e-3)
    for t, pairs in enumerate(data["trades"]):
        assert sum(power for *_, power in pairs) == pytest.approx(episode.trade_kw[t].sum(), abs=0.1)


def test_names_of_users_stay_texts(episode):
    named = with_names(episode, HOSTILE)
    text = page(named, HOSTILE)
    reader, plain = read(text), read(page(episode, "a day"))
    assert reader.tags == plain.tags
    assert reader.texts["h1"] == HOSTILE and HOSTILE in reader.texts["title"]
    assert data_of(text)["buses"][1] == HOSTILE
    assert "\u2028" not in re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1)


def test_what_is_wrong_in_an_interval_is_said(episode):
    voltage_pu = episode.voltage_pu.copy()
    voltage_pu[1, 5] = 0.5
    said = page_data(replace(episode, voltage_pu=voltage_pu, status=np.array([0, 0, 3])))["alarms"]
    assert said[0] == "" and said[1] == "1 buses beyond limits" and "no dispatch" in said[2]


@pytest.mark.parametrize("scenario", ["ieee33", "ieee123"])
def test_a_day_takes_less_than_half_a_megabyte(scenario, tmp_path):
    sizes = []
    for intervals in (1, 3):
        write_page(played(scenario, intervals), tmp_path / "page.html", "a day")
        sizes.append((tmp_path / "page.html").stat().st_size)
    day = sizes[0] + 23 * (sizes[1] - sizes[0]) / 2
    assert 30_000 < day < 500_000


def test_the_hourly_table_has_every_interval_and_fits(episode):
    console = Console(width=TABLE_WIDTH, file=StringIO())
    console.print(run_policy.hourly_table(episode, "a day"))
    text = console.file.getvalue()
    assert "…" not in text
    for t in range(3):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"0{t}:00")]
        assert f"{episode.lmp_per_kwh[t]:.3f}" in line and f"{episode.welfare[t]:.2f}" in line and "optimal" in line


def test_the_command_writes_page_tables_and_a_film_of_every_interval(tmp_path, capsys):
    with initialize_config_module("peergrid.conf", version_base="1.3"):
        chosen = [f"output={tmp_path}", "gif=true", "tables=csv", "+scenario.intervals=2", "day=3"]
        cfg = compose("run_policy", chosen)
        run_policy.main.__wrapped__(cfg)
    (folder,) = tmp_path.iterdir()
    assert str(folder / "report.html") in capsys.readouterr().out.replace("\n", "")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(data_of(text)["hours"]) == 2 and "policy truthful, predictor auto, held-out day 3" in text
    assert len(pd.read_csv(folder / "tables" / "microgrids.csv")) == 2 * 4
    with Image.open(folder / "day.gif") as film:
        assert film.n_frames == 2 and film.size == (1200, 800)
