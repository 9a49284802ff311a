"""Data sets: the exact DSO's answers, the same ones however they are made, and never damaged ones."""

import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace

import joblib
import numpy as np
import pyarrow.parquet as pq
import pytest

from peergrid.envs.common.profiles import SyntheticProfiles, evaluation_days, training_days
from peergrid.envs.microgrid import Interval
from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, load_scenario
from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.grid.errors import InvalidDataset
from peergrid.grid.files import write_whole
from peergrid.surrogate import sampling
from peergrid.surrogate.dataset import MANIFEST, load_subset, make_dataset, solar_factors
from peergrid.surrogate.questions import network_digest
from peergrid.surrogate.samples import Samples, concatenate, label
from peergrid.surrogate.sampling import PROPOSALS, Sampling, Shard, draw

SCENARIO = "ieee33_communities"
SUBSETS = {"train": Sampling(days=4), "test": Sampling(days=3, held_out_days=True)}
DAY_BY_DAY = {"train": Sampling(days=60)}


def make(folder, subsets=None, scenario=SCENARIO, *, shard_days=2, workers=1, **settings):
    return make_dataset(folder, scenario, subsets or SUBSETS, shard_days=shard_days, workers=workers, **settings)


def drawn(sampling=None, *, days=4, subset="train", scenario=SCENARIO, seed=0) -> Samples:
    return draw(Shard(load_scenario(scenario), subset, sampling or Sampling(), seed, 0, days))


def assert_same(one: Samples, other: Samples) -> None:
    for f in fields(Samples):
        np.testing.assert_array_equal(getattr(one, f.name), getattr(other, f.name), err_msg=f.name)


def partial_files(folder):
    return list(folder.rglob("*.partial"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set to look at, and what its manifest says."""
    folder = tmp_path_factory.mktemp("data")
    return folder, make(folder)


@pytest.fixture
def own(tmp_path):
    """A data set to damage."""
    make(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def questions() -> Samples:
    return drawn(days=20)


# What is kept


def test_the_manifest_says_what_is_there(made):
    folder, manifest = made
    assert json.loads((folder / MANIFEST).read_text()) == json.loads(json.dumps(manifest))
    assert manifest["samples"] == {"train": 96, "test": 72}
    assert sorted(manifest["shards"]) == [f"{s}/shard-0000{i}.parquet" for s in ("test", "train") for i in (0, 1)]
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet")} == set(manifest["shards"])
    assert manifest["network_sha256"] == network_digest(build_dso(load_scenario(SCENARIO)))
    for name, n in manifest["samples"].items():
        samples = load_subset(folder, name)
        assert len(samples) == n == len(samples.rows(slice(None)))
        assert (samples.status != 0).sum() == 0 == manifest["not_optimal"]
        assert {getattr(samples, f.name).dtype for f in fields(Samples)} == {np.dtype("float32"), np.dtype("int8")}


def test_a_subset_is_its_shards_in_order(made):
    scenario, whole = load_scenario(SCENARIO), load_subset(made[0], "train")
    parts = [draw(Shard(scenario, "train", SUBSETS["train"], 0, number, 2)) for number in (0, 1)]
    assert_same(whole, concatenate(parts))
    assert not np.array_equal(parts[0].load_kw, parts[1].load_kw)


def test_data_do_not_depend_on_the_number_of_workers(made, tmp_path):
    folder, manifest = made
    assert make(tmp_path, workers=2) == manifest
    for name in SUBSETS:
        assert_same(load_subset(tmp_path, name), load_subset(folder, name))


def test_data_do_not_depend_on_the_backend(made, tmp_path):
    with joblib.parallel_config(backend="threading"):
        assert make(tmp_path, workers=2) == made[1]


@pytest.mark.slow
def test_a_dask_cluster_makes_the_same_data(made, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        assert make(tmp_path, workers=0) == made[1]


def test_seed_subset_and_scenario_give_other_data(made):
    _, manifest = made
    mine = drawn(days=1)
    others = (drawn(days=1, seed=1), drawn(days=1, subset="test"), drawn(days=1, scenario="ieee33"))
    assert len({samples.digest() for samples in (mine, *others)}) == 4
    assert manifest["shards"]["train/shard-00000.parquet"]["sha256"] == drawn(days=2).digest()


# Labels


def test_every_label_is_what_the_dso_answers(questions):
    dso = build_dso(load_scenario(SCENARIO))
    shed_kw = questions.shed_kw.max(axis=1)
    most_shed = np.argsort(-shed_kw * questions.c_ls_per_kw2h)[:5]
    assert shed_kw[most_shed].min() > 1.0
    for i in (*range(0, len(questions), 29), *most_shed):
        answer = dso(question(questions, dso, i))
        for name in ("accepted_kw", "shed_kw", "price_per_kwh"):
            kept = getattr(questions, name)[i]
            np.testing.assert_allclose(kept, getattr(answer, name), rtol=1e-5, atol=1e-4, err_msg=f"{name} of row {i}")
        assert questions.status[i] == answer.status


def test_labels_are_those_of_the_rounded_questions_that_are_kept(questions):
    assert_same(label(build_dso(load_scenario(SCENARIO)), questions.hour, questions.questions), questions)


def test_another_solver_agrees_with_the_labels(questions):
    exact = build_dso(load_scenario(SCENARIO))
    conic = OpfDso(exact.feeder, exact.trade_bus, generators=exact.generators, penalty=exact.penalty, solver="conic")
    cut_kw = np.abs(questions.proposed_kw - questions.accepted_kw).max(axis=1)
    rows = np.argsort(-cut_kw)[[0, 3, 10, 30, 60, -1]]
    assert cut_kw[rows[0]] > 100.0 > 1e-3 > cut_kw[rows[-1]]
    for i in rows:
        answer = conic(question(questions, conic, i))
        np.testing.assert_allclose(questions.accepted_kw[i], answer.accepted_kw, atol=1e-3)
        np.testing.assert_allclose(questions.shed_kw[i], answer.shed_kw, atol=1e-3)
        np.testing.assert_allclose(questions.price_per_kwh[i], answer.price_per_kwh, atol=1e-5)


def question(samples: Samples, dso: OpfDso, i: int) -> DsoQuery:
    penalty = replace(
        dso.penalty,
        lambda_corr_per_kw2h=float(samples.lambda_corr_per_kw2h[i]),
        c_ls_per_kw2h=float(samples.c_ls_per_kw2h[i]),
    )
    return DsoQuery(
        load_kw=samples.load_kw[i].astype(float),
        load_kvar=samples.load_kvar[i].astype(float),
        proposed_kw=samples.proposed_kw[i].astype(float),
        lmp_per_kwh=float(samples.lmp_per_kwh[i]),
        penalty=penalty,
    )


def test_acceptances_lie_between_nothing_and_the_proposal(questions):
    accepted, proposed = questions.accepted_kw, questions.proposed_kw
    assert (accepted * np.sign(proposed) >= 0).all() and (np.abs(accepted) <= np.abs(proposed)).all()
    is_cut = np.abs(accepted) < np.abs(proposed) - 1.0
    assert 0.02 < is_cut.mean() < 0.9, "the data would teach nothing"


# The distribution


@pytest.mark.parametrize("held_out", [False, True])
def test_subsets_that_test_use_evaluation_days_and_others_training_days(monkeypatch, tmp_path, held_out):
    asked, original = [], SyntheticProfiles.draw

    def recorded(self, shape, day, rng):
        asked.append(day)
        return original(self, shape, day, rng)

    monkeypatch.setattr(SyntheticProfiles, "draw", recorded)
    make(tmp_path, {"any": Sampling(days=40, held_out_days=held_out)}, shard_days=20)
    assert len(asked) == 40
    assert set(asked) <= set(evaluation_days(365) if held_out else training_days(365))
    assert len(set(asked)) > 20


def test_only_the_hours_asked_for_are_drawn():
    assert drawn(days=2).hour.tolist() == 2 * list(range(24))
    noon = drawn(Sampling(hours=(12, 19)), days=3)
    assert noon.hour.tolist() == 3 * [12, 19] and noon.load_kw.shape == (6, 33)
    half_hours = drawn(Sampling(hours=(12, 19)), days=1, scenario=replace(load_scenario(SCENARIO), step_hours=0.5))
    assert half_hours.hour.tolist() == [12, 12, 19, 19]


def test_loads_and_lmp_are_scaled_as_documented(questions):
    # Ranges of one point draw as many random numbers, so everything else is as it was.
    plain = drawn(Sampling(load_scale=(1.0, 1.0), reactive_scale=(1.0, 1.0), lmp_scale=(1.0, 1.0)), days=20)
    far = plain.load_kw[0] > 1.0
    load = questions.load_kw[:, far] / plain.load_kw[:, far]
    reactive = questions.load_kvar[:, far] / plain.load_kvar[:, far] / load
    for ratio in (load, reactive):
        np.testing.assert_allclose(ratio, ratio[:, :1].repeat(far.sum(), axis=1), rtol=1e-5)
    lmp = questions.lmp_per_kwh / plain.lmp_per_kwh
    assert_fills(load[:, 0], *Sampling.load_scale)
    assert_fills(reactive[:, 0], *Sampling.reactive_scale)
    assert_fills(lmp, *Sampling.lmp_scale)
    assert abs(np.corrcoef(load[:, 0], lmp)[0, 1]) < 0.15


def test_penalties_are_the_scenarios_own_half_the_time(questions):
    own = build_dso(load_scenario(SCENARIO)).penalty
    factor = questions.lambda_corr_per_kw2h / np.float32(own.lambda_corr_per_kw2h)
    is_own = factor == 1.0
    assert 0.4 < is_own.mean() < 0.6
    assert_fills(np.log(factor[~is_own]), *np.log(Sampling.lambda_scale))
    c_ls = questions.c_ls_per_kw2h
    is_own_c_ls = c_ls == np.float32(own.c_ls_per_kw2h)
    assert 0.4 < is_own_c_ls.mean() < 0.6
    assert_fills(np.log(c_ls[~is_own_c_ls]), *np.log(Sampling.c_ls_per_kw2h))
    assert 0.15 < (is_own & is_own_c_ls).mean() < 0.35


def assert_fills(values, least, most):
    """They lie in the range, reach for both ends, and are uniform in it."""
    width = most - least
    assert least - 1e-4 * width <= values.min() < least + 0.03 * width
    assert most + 1e-4 * width >= values.max() > most - 0.03 * width
    assert abs(values.mean() - (least + most) / 2) < 0.1 * width


def test_proposals_are_made_in_the_documented_shares(monkeypatch, questions):
    of_way = {}
    for way in PROPOSALS:
        # As many random numbers are drawn, so this is what everybody would have proposed in this way.
        monkeypatch.setattr(sampling, "PROPOSALS", {name: float(name == way) for name in PROPOSALS})
        of_way[way] = drawn(days=20).proposed_kw
    fits = {way: questions.proposed_kw == proposed for way, proposed in of_way.items()}
    assert np.any(list(fits.values()), axis=0).all()
    for way, share in PROPOSALS.items():
        assert fits[way].mean() == pytest.approx(share, abs=0.05), way
    assert (of_way["none"] == 0).all()
    rating_kw = build_microgrids(load_scenario(SCENARIO)).rating_kw
    for way, proposed in of_way.items():
        # The sun that is drawn may be somewhat more than the plants' peak.
        assert (np.abs(proposed) <= 1.2 * rating_kw).all(), way
    full, uniform = of_way["full"], of_way["uniform"]
    assert (full > 0).mean() == pytest.approx(0.5, abs=0.05)
    within = np.abs(uniform) < np.abs(full)
    assert within[np.sign(uniform) == np.sign(full)].all(), "full is as far as one can go"


def test_proposals_can_be_made_larger_than_the_microgrids_are(questions):
    larger = drawn(Sampling(proposal_scale=2.0), days=20)
    np.testing.assert_allclose(larger.proposed_kw, 2.0 * questions.proposed_kw, rtol=1e-6)


def test_the_spread_of_the_sun_is_a_setting(monkeypatch):
    suns, original = [], sampling._proposals

    def recorded(params, idle: Interval, lmp, rng):
        suns.append(idle.pv_kw)
        return original(params, idle, lmp, rng)

    monkeypatch.setattr(sampling, "_proposals", recorded)
    for spread in (0.0, 0.2, 3.0):
        drawn(Sampling(solar_spread=spread), days=20)
    plain, usual, wild = suns
    factor = usual[plain > 0] / plain[plain > 0]
    assert factor.mean() == pytest.approx(1.0, abs=0.02) and factor.std() == pytest.approx(0.2, abs=0.02)
    assert wild.min() == 0.0 and (usual[plain == 0] == 0).all()


@pytest.fixture(scope="module")
def sunny(tmp_path_factory):
    """A data set with some daylight in two shards of different lengths."""
    folder = tmp_path_factory.mktemp("sunny")
    make(folder, {"train": Sampling(days=7, hours=(2, 9, 12))}, shard_days=4, seed=5)
    return folder


def test_solar_factors_are_those_that_the_proposals_were_made_under(sunny, monkeypatch):
    suns, original = [], sampling._proposals

    def recorded(params, idle: Interval, lmp, rng):
        suns.append(idle.pv_kw)
        return original(params, idle, lmp, rng)

    monkeypatch.setattr(sampling, "_proposals", recorded)
    factor = solar_factors(sunny, load_scenario(SCENARIO), "train")
    for number, days in enumerate((4, 3)):
        draw(Shard(load_scenario(SCENARIO), "train", Sampling(hours=(2, 9, 12), solar_spread=0.0), 5, number, days))
    drawn_kw, plain_kw = np.concatenate(suns[:2]), np.concatenate(suns[2:])
    assert factor.shape == (21, 4)
    assert (np.isnan(factor) == (plain_kw == 0)).all() and np.isnan(factor).mean() >= 1 / 3
    np.testing.assert_allclose(np.nan_to_num(factor) * plain_kw, drawn_kw)
    assert 0.1 < np.nanstd(factor) < 0.3


def test_solar_factors_of_other_questions_are_not_made_up(sunny, monkeypatch):
    with pytest.raises(InvalidDataset, match="other questions than are drawn for ieee33"):
        solar_factors(sunny, load_scenario("ieee33"), "train")
    monkeypatch.setattr(sampling, "PROPOSALS", {name: 0.2 for name in PROPOSALS})
    with pytest.raises(InvalidDataset, match="make it anew"):
        solar_factors(sunny, load_scenario(SCENARIO), "train")


# Interruptions


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return make(tmp_path_factory.mktemp("undisturbed"), DAY_BY_DAY, shard_days=1)


def test_a_run_that_was_killed_goes_on_where_it_was(undisturbed, tmp_path):
    program = (
        "import sys; from pathlib import Path; from peergrid.surrogate.dataset import make_dataset\n"
        "from peergrid.surrogate.sampling import Sampling\n"
        f"make_dataset(Path(sys.argv[1]), {SCENARIO!r}, {DAY_BY_DAY!r}, shard_days=1, workers=2)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.DEVNULL) as process:
        patience = time.monotonic() + 60
        while not list(tmp_path.rglob("*.parquet")) and time.monotonic() < patience and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert 1 <= len(kept) < 60 and not (tmp_path / MANIFEST).exists()
    (tmp_path / "train" / "shard-00059.parquet.0123.partial").write_bytes(b"PAR1")
    assert make(tmp_path, DAY_BY_DAY, shard_days=1) == undisturbed
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items()), "finished shards are kept"
    # Workers of the run that was killed may still finish what they were at.
    patience = time.monotonic() + 10
    while partial_files(tmp_path) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not partial_files(tmp_path)


def test_two_that_write_the_same_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "shard"

    def write_while_another_does(unfinished):
        unfinished.write_text("who")
        write_whole(path, lambda other: other.write_text("whole"))
        assert path.read_text() == "whole"
        with unfinished.open("a") as file:
            file.write("le")

    write_whole(path, write_while_another_does)
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_and_what_was_made_is_kept(monkeypatch, tmp_path, made):
    written, original = [], pq.write_table

    def write_half(table, where, **options):
        if len(written) == 2:
            where.write_bytes(b"PAR1")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(where)
        original(table, where, **options)

    monkeypatch.setattr(pq, "write_table", write_half)
    with pytest.raises(InvalidDataset, match=r"test.shard-00000\.parquet can't be written \(No space left on device\)"):
        make(tmp_path)
    assert not partial_files(tmp_path)
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["shard-00000.parquet", "shard-00001.parquet"]
    monkeypatch.undo()
    assert make(tmp_path) == made[1]


def test_a_limit_on_the_size_of_files_is_met_as_a_full_disk_is(tmp_path):
    pytest.importorskip("resource")
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from peergrid.surrogate.dataset import make_dataset\n"
        "from peergrid.surrogate.sampling import Sampling\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "make_dataset(Path(sys.argv[1]), 'ieee33', {'train': Sampling(days=1)}, workers=1)"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "InvalidDataset" in run.stderr and "File too large" in run.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidDataset, match=r"file.data.train.shard-00000\.parquet can't be written"):
        make(tmp_path / "file" / "data")


# Damage


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def other_table(path):
    pq.write_table(pq.read_table(path).select(["hour"]), path)


def other_numbers(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "hour", [table.column("hour").to_numpy() + np.int8(1)]), path)


DAMAGE = [cut_short, emptied, flip_a_byte, other_table, other_numbers]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named(own, damage):
    path = own / "train" / "shard-00001.parquet"
    damage(path)
    for use in (lambda: load_subset(own, "train"), lambda: make(own)):
        with pytest.raises(InvalidDataset, match=r"train.shard-00001\.parquet is damaged"):
            use()
    load_subset(own, "test")
    path.unlink()
    make(own)
    load_subset(own, "train")


def test_whichever_byte_is_flipped_nothing_wrong_is_read(own):
    path, whole = own / "train" / "shard-00000.parquet", load_subset(own, "train")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    found = 0
    for at in rng.integers(len(content), size=150):
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            assert_same(load_subset(own, "train"), whole)
        except InvalidDataset as error:
            assert str(path) in str(error)
            found += 1
    assert found > 100


def test_a_missing_shard_is_named(own):
    (own / "test" / "shard-00000.parquet").unlink()
    with pytest.raises(InvalidDataset, match=r"test.shard-00000\.parquet"):
        load_subset(own, "test")


def test_a_shard_of_another_data_set_is_named(own, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    make(other, seed=1)
    name = "train/shard-00000.parquet"
    (own / name).write_bytes((other / name).read_bytes())
    with pytest.raises(InvalidDataset, match=r"train.shard-00000\.parquet is not what the manifest names"):
        load_subset(own, "train")


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"scenario": "ieee33"},
        {"subsets": {"train": Sampling(days=4, load_scale=(0.9, 1.0))}},
        {"subsets": {"train": Sampling(days=3)}, "shard_days": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_shards_of_other_settings_are_not_mixed_in(made, settings):
    folder, manifest = made
    with pytest.raises(InvalidDataset, match=r"train.shard-00000\.parquet was made with other settings"):
        make(folder, **settings)
    assert make(folder) == manifest


MANIFESTS = {
    "empty": b"",
    "half": b'{"format": 1, "subsets": {"train"',
    "not text": b"\xff\xfe\x00",
    "no object": b"[1, 2]",
    "null": b"null",
    "no shards": b'{"subsets": {"train": {}}}',
    "shards as a list": b'{"subsets": {"train": {}}, "shards": ["train/shard-00000.parquet"]}',
    "no digest": b'{"subsets": {"train": {}}, "shards": {"train/shard-00000.parquet": {"samples": 48}}}',
}


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_damaged_manifest_is_named(own, content):
    manifest = own / MANIFEST
    before = manifest.read_bytes()
    manifest.write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"manifest\.json is damaged") as raised:
        load_subset(own, "train")
    assert str(manifest) in str(raised.value)
    make(own)
    assert manifest.read_bytes() == before


def test_a_manifest_that_lost_a_shard_is_damaged(own):
    manifest = own / MANIFEST
    known = json.loads(manifest.read_text())
    known["shards"].pop("train/shard-00001.parquet")
    manifest.write_text(json.dumps(known))
    with pytest.raises(InvalidDataset, match=r"its shards of 'train' hold \d+ samples, not \d+"):
        load_subset(own, "train")


def test_what_is_not_there_is_named(made, tmp_path):
    with pytest.raises(InvalidDataset, match=r"holds no data set: there is no manifest\.json"):
        load_subset(tmp_path, "train")
    with pytest.raises(InvalidDataset, match="has no subset 'validation', only train, test"):
        load_subset(made[0], "validation")
