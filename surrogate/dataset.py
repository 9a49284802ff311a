"""What the DSO answers to many questions: drawn from documented distributions, solved exactly, kept as Parquet.

A data set is a folder with a folder per subset of shards, and a manifest. A shard depends on the settings, its subset
and its number alone, so it is the same whoever makes it, with however many workers, and after any interruption.

    drawn                 from
    day, hour             the scenario's profiles: training days, or held-out days for subsets that test
    load                  the day's, times `load_scale`, uniform
    reactive load         the day's, times the same and `reactive_scale`, uniform
    LMP                   the day's, times `lmp_scale`, uniform
    PV                    the day's, times 1 + `solar_spread` times a standard normal, not below 0
    lambda_corr           half the time the scenario's own, else that times a log-uniform number from `lambda_scale`
    c_ls                  half the time the scenario's own, else that times a log-uniform number from `c_ls_scale`, or,
                          where its own is 0, log-uniform from `c_ls_per_kw2h`
    proposals             each microgrid for itself, in shares of `PROPOSALS`: dispatched under the drawn sun and a
                          random use of its battery, at a price near the LMP or any; uniform between its full import
                          and its full export; one of these two; none
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from tqdm import tqdm

from peergrid.envs.common.profiles import DayShape, evaluation_days, training_days
from peergrid.envs.microgrid import Interval, export_at, export_range
from peergrid.envs.p2p_trading.scenario import Scenario, build_profiles, load_scenario
from peergrid.envs.p2p_trading.simulation import build_days, build_params
from peergrid.envs.p2p_trading.types import Params
from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.grid.errors import InvalidDataset, PeergridError

PROPOSALS = {
    "dispatched near the LMP": 0.25,
    "dispatched at any price": 0.15,
    "uniform": 0.4,
    "full": 0.17,
    "none": 0.03,
}
MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Sampling:
    """The distribution of the questions of one subset; ranges are [from, to]."""

    days: int = 400
    held_out_days: bool = False
    hours: tuple[int, ...] = tuple(range(24))
    load_scale: tuple[float, float] = (0.8, 1.1)
    reactive_scale: tuple[float, float] = (0.85, 1.15)
    lmp_scale: tuple[float, float] = (0.8, 1.25)
    solar_spread: float = 0.2
    lambda_scale: tuple[float, float] = (0.4, 2.5)
    c_ls_per_kw2h: tuple[float, float] = (1e-4, 1e-1)
    c_ls_scale: tuple[float, float] = (0.1, 10.0)
    proposal_scale: float = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """Questions to the DSO and its answers, one per row; float32, as they are kept and as they were solved."""

    hour: Int[np.ndarray, " row"]
    load_kw: Float[np.ndarray, "row bus"]
    load_kvar: Float[np.ndarray, "row bus"]
    proposed_kw: Float[np.ndarray, "row trade"]
    lmp_per_kwh: Float[np.ndarray, " row"]
    lambda_corr_per_kw2h: Float[np.ndarray, " row"]
    c_ls_per_kw2h: Float[np.ndarray, " row"]
    accepted_kw: Float[np.ndarray, "row trade"]
    shed_kw: Float[np.ndarray, "row bus"]
    price_per_kwh: Float[np.ndarray, "row bus"]
    status: Int[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.hour)

    def rows(self, chosen: Any) -> Samples:
        """Some of the rows, by an index."""
        return Samples(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def digest(self) -> str:
        """SHA-256 of all arrays."""
        found = hashlib.sha256()
        for f in fields(self):
            values = np.ascontiguousarray(getattr(self, f.name))
            found.update(f"{f.name} {values.dtype.str} {values.shape}\n".encode())
            found.update(values.tobytes())
        return found.hexdigest()


def concatenate(parts: Sequence[Samples]) -> Samples:
    """The rows of several, in order."""
    return Samples(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Samples)})


@dataclass(frozen=True)
class Shard:
    """Which shard: all that its content depends on."""

    scenario: Scenario
    subset: str
    sampling: Sampling
    seed: int
    number: int
    days: int

    def fingerprint(self) -> str:
        """What tells this shard's settings from others'; kept in its file."""
        known = asdict(self) | {"format": FORMAT, "proposals": PROPOSALS, "peergrid": version("peergrid")}
        known["network"] = network_digest(_parts(self.scenario)[1])
        return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def make_dataset(
    folder: Path,
    scenario: str | Scenario,
    subsets: dict[str, Sampling],
    *,
    seed: int = 0,
    shard_days: int = 100,
    workers: int = 0,
) -> dict[str, Any]:
    """Make the shards that are missing, with a progress bar, and the manifest; return what it says.

    Shards are written whole or not at all, so this can be stopped at any moment and called again. The work is handed to
    joblib: within `joblib.parallel_config("dask")` a cluster that shares the folder does it.

    Args:
        workers: Processes on this machine; 0 for one per core.

    Raises:
        InvalidDataset: A shard of other settings or a damaged one is in the way, or the disk is full.
    """
    chosen = load_scenario(scenario)
    shards = [
        shard for name, sampling in subsets.items() for shard in _shards(chosen, name, sampling, seed, shard_days)
    ]
    tasks = (joblib.delayed(_keep)(folder, shard) for shard in shards)
    made = joblib.Parallel(n_jobs=workers or -1, return_as="generator")(tasks)
    with tqdm(total=len(shards), desc="data set", unit="shard", disable=None, leave=False) as bar:
        found = {}
        for shard, summary in zip(shards, made, strict=True):
            found[_path(Path(), shard).as_posix()] = summary
            bar.update()
    held = {name: sum(found[at]["samples"] for at in found if at.startswith(f"{name}/")) for name in subsets}
    manifest = {
        "format": FORMAT,
        "peergrid": version("peergrid"),
        "scenario": chosen.name,
        "feeder": chosen.network.feeder,
        "network_sha256": network_digest(_parts(chosen)[1]),
        "solver": chosen.dso.solver,
        "seed": seed,
        "proposals": PROPOSALS,
        "subsets": {name: asdict(sampling) for name, sampling in subsets.items()},
        "samples": held,
        "not_optimal": sum(s["not_optimal"] for s in found.values()),
        "sha256": hashlib.sha256("".join(s["sha256"] for s in found.values()).encode()).hexdigest(),
        "shards": found,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    write_whole(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
    for left in (*folder.glob("*.partial"), *folder.glob("*/*.partial")):  # by runs that were killed
        left.unlink(missing_ok=True)
    return manifest


def load_subset(folder: Path, subset: str) -> Samples:
    """All samples of a subset that the manifest names.

    Raises:
        InvalidDataset: There is no such subset, or the manifest or a shard is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        subsets = list(manifest["subsets"])
        digests = {at: shard["sha256"] for at, shard in manifest["shards"].items() if at.startswith(f"{subset}/")}
        n_samples = dict(manifest["samples"])
    except FileNotFoundError:
        raise InvalidDataset(f"{folder} holds no data set: there is no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDataset(f"{folder / MANIFEST} is damaged: {error!r}") from None
    if subset not in subsets:
        raise InvalidDataset(f"{folder} has no subset {subset!r}, only {', '.join(subsets)}")
    parts = []
    for at, digest in digests.items():
        samples, _ = read_shard(folder / at)
        if samples.digest() != digest:
            raise InvalidDataset(f"{folder / at} is not what the manifest names: make the data set anew")
        parts.append(samples)
    n_found = sum(map(len, parts))
    if n_found == 0 or n_found != n_samples.get(subset):
        told = f"its shards of {subset!r} hold {n_found} samples, not {n_samples.get(subset)}"
        raise InvalidDataset(f"{folder / MANIFEST} is damaged: {told}")
    return concatenate(parts)


def _shards(scenario: Scenario, subset: str, sampling: Sampling, seed: int, shard_days: int) -> list[Shard]:
    starts = range(0, sampling.days, shard_days)
    return [
        Shard(scenario, subset, sampling, seed, number, min(shard_days, sampling.days - start))
        for number, start in enumerate(starts)
    ]


def _path(folder: Path, shard: Shard) -> Path:
    return folder / shard.subset / f"shard-{shard.number:05d}.parquet"


def _keep(folder: Path, shard: Shard) -> dict[str, Any]:
    """Make a shard unless it is there; say what it holds."""
    path = _path(folder, shard)
    if path.exists():
        samples, kept = read_shard(path)
        if kept != shard.fingerprint():
            raise InvalidDataset(f"{path} was made with other settings: choose another folder, or delete it")
    else:
        samples = draw(shard)
        write_whole(path, lambda unfinished: _write(unfinished, samples, shard.fingerprint()))
    bad = int((samples.status != 0).sum())
    return {"samples": len(samples), "not_optimal": bad, "sha256": samples.digest()}


def write_whole(path: Path, write: Callable[[Path], Any], error: type[PeergridError] = InvalidDataset) -> None:
    """Write a file beside its place and move it there, so that it is there whole or not at all.

    Args:
        error: What is raised if it can't be written, as where the disk is full.
    """
    # Nobody else's name: workers outlive a run that was killed, and finish what the next run has begun as well.
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        unfinished.replace(path)
    except OSError as cause:
        raise error(
            f"{path} can't be written ({cause.strerror or cause}): make room and run again; what is there is kept"
        ) from None
    finally:
        with suppress(OSError):  # there is none where all went well
            unfinished.unlink()


def _write(path: Path, samples: Samples, fingerprint: str) -> None:
    columns = {}
    for f in fields(samples):
        values = getattr(samples, f.name)
        flat = pa.array(values.reshape(-1))
        columns[f.name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    named = {"peergrid": fingerprint, "sha256": samples.digest()}
    pq.write_table(pa.table(columns).replace_schema_metadata(named), path, compression="zstd")


def read_shard(path: Path) -> tuple[Samples, str]:
    """The samples of a shard, and the fingerprint of its settings.

    Raises:
        InvalidDataset: It is missing or damaged.
    """
    damaged = f"{path} is damaged: delete it and run again, and it is made anew"
    try:
        table = pq.read_table(path)
        known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        samples = Samples(**{f.name: _array(table.column(f.name).combine_chunks()) for f in fields(Samples)})
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InvalidDataset(f"{damaged} ({error})") from None
    if known.get("sha256") != samples.digest():
        raise InvalidDataset(damaged)
    return samples, known.get("peergrid", "")


def _array(column: pa.Array) -> np.ndarray:
    is_list = pa.types.is_fixed_size_list(column.type)
    values = (column.flatten() if is_list else column).to_numpy(zero_copy_only=False)
    return values.reshape(-1, column.type.list_size) if is_list else values


def draw(shard: Shard) -> Samples:
    """The samples of a shard: questions drawn, answers solved."""
    drawn = _draw_questions(shard)
    return label(_parts(shard.scenario)[1], drawn.hour, drawn.asked)


def solar_factors(folder: Path, scenario: Scenario, subset: str) -> Float[np.ndarray, "row trade"]:
    """The PV drawn for each microgrid over its day's own, in every sample of a subset; NaN where the day has none.

    It shapes proposals and is no part of a question, so a data set does not keep it: it is drawn again, as it was.

    Raises:
        InvalidDataset: There is no such subset, it is damaged, or it is not what this version draws in the scenario.
    """
    kept = load_subset(folder, subset)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    known: dict[str, Any] = manifest["subsets"][subset]
    known |= {name: tuple(values) for name, values in known.items() if isinstance(values, list)}
    sampling = Sampling(**known)
    held = [shard["samples"] for at, shard in manifest["shards"].items() if at.startswith(f"{subset}/")]
    days = [n * sampling.days // len(kept) for n in held]
    drawn = [
        _draw_questions(Shard(scenario, subset, sampling, manifest["seed"], number, n)) for number, n in enumerate(days)
    ]
    proposed_kw = np.concatenate([part.asked["proposed_kw"] for part in drawn])
    # Another processor may round otherwise.
    if proposed_kw.shape != kept.proposed_kw.shape or not np.allclose(proposed_kw, kept.proposed_kw, 1e-4, 1e-3):
        raise InvalidDataset(f"{folder} holds other questions than are drawn for {scenario.name}: make it anew")
    return np.concatenate([part.solar_factor for part in drawn])


def label(dso: OpfDso, hour: Int[np.ndarray, " row"], asked: dict[str, np.ndarray]) -> Samples:
    """Questions with the answers of the DSO: the fields of `Samples` down to `c_ls_per_kw2h`, by name.

    They are rounded to float32 before they are asked, so that the answers are those to what is kept.
    """
    kept = {name: values.astype(np.float32) for name, values in asked.items()}
    exact = {name: values.astype(float) for name, values in kept.items()}
    lambda_corr, c_ls = (exact.pop(name)[:, None] for name in ("lambda_corr_per_kw2h", "c_ls_per_kw2h"))
    penalty = replace(dso.penalty, lambda_corr_per_kw2h=lambda_corr, c_ls_per_kw2h=c_ls)
    response = dso(DsoQuery(**exact, penalty=penalty))
    answers = ("accepted_kw", "shed_kw", "price_per_kwh")
    return Samples(
        hour=hour.astype(np.int8),
        **kept,
        **{name: getattr(response, name).astype(np.float32) for name in answers},
        status=response.status.astype(np.int8),
    )


@lru_cache(maxsize=4)
def _parts(scenario: Scenario) -> tuple[Params, OpfDso]:
    params = build_params(scenario)
    assert isinstance(params.dso, OpfDso)
    return params, params.dso


@dataclass(frozen=True, eq=False, kw_only=True)
class _Drawn:
    """Questions by the names of `Samples`, and what was behind their proposals."""

    hour: Int[np.ndarray, " row"]
    asked: dict[str, np.ndarray]
    solar_factor: Float[np.ndarray, "row trade"]


def _draw_questions(shard: Shard) -> _Drawn:
    params, dso = _parts(shard.scenario)
    rng = np.random.default_rng([shard.seed, zlib.crc32(shard.subset.encode()), shard.number])
    sampling, scenario = shard.sampling, shard.scenario
    per_day = round(24.0 / params.step_hours)
    shape = DayShape(
        intervals=per_day,
        step_hours=params.step_hours,
        bus=params.feeder.bus,
        demand_class=tuple(m.demand_class for m in scenario.microgrids),
    )
    source = build_profiles(scenario)
    known = evaluation_days(source.n_days) if sampling.held_out_days else training_days(source.n_days)
    drawn = [source.draw(shape, known[int(rng.integers(len(known)))], rng) for _ in range(shard.days)]
    days = build_days(scenario, replace(params, intervals=per_day), drawn)
    hours = (np.arange(per_day) * params.step_hours).astype(int)
    chosen = np.flatnonzero(np.isin(hours, sampling.hours))

    def rows(values: Float[np.ndarray, "day time *more"]) -> np.ndarray:
        return values[:, chosen].reshape(-1, *values.shape[2:])

    n, n_trade = shard.days * len(chosen), len(params.agent_bus)

    def between(ends: tuple[float, float]) -> Float[np.ndarray, " row"]:
        return rng.uniform(*ends, n)

    def log_between(ends: tuple[float, float]) -> Float[np.ndarray, " row"]:
        return np.exp(rng.uniform(np.log(ends[0]), np.log(ends[1]), n))

    scale = between(sampling.load_scale)[:, None]
    lmp = rows(days.lmp_per_kwh) * between(sampling.lmp_scale)
    sun = np.maximum(1.0 + sampling.solar_spread * rng.standard_normal((n, n_trade)), 0.0)
    pv_kw = rows(days.pv_kw)
    interval = Interval(
        pv_kw=pv_kw * sun,
        demand_kw=rows(days.demand_kw),
        alpha_per_kw2h=rows(days.alpha_per_kw2h),
        battery_kw=np.zeros((n, n_trade)),
    )
    own_lambda = np.broadcast_to(dso.penalty.lambda_corr_per_kw2h, n)
    own_c_ls = np.broadcast_to(dso.penalty.c_ls_per_kw2h, n)
    is_own_lambda, is_own_c_ls = rng.random((2, n)) < 0.5
    has_own = bool(np.all(own_c_ls > 0))

    def other_c_ls() -> Float[np.ndarray, " row"]:
        return own_c_ls * log_between(sampling.c_ls_scale) if has_own else log_between(sampling.c_ls_per_kw2h)

    asked = {
        "load_kw": rows(days.load_kw) * scale,
        "load_kvar": rows(days.load_kvar) * scale * between(sampling.reactive_scale)[:, None],
        "proposed_kw": sampling.proposal_scale * _proposals(params, interval, lmp, rng),
        "lmp_per_kwh": lmp,
        "lambda_corr_per_kw2h": np.where(is_own_lambda, 1.0, log_between(sampling.lambda_scale)) * own_lambda,
        "c_ls_per_kw2h": np.where(is_own_c_ls, own_c_ls, other_c_ls()),
    }
    solar_factor = np.where(pv_kw > 0, sun, np.nan)
    return _Drawn(hour=np.tile(hours[chosen], shard.days), asked=asked, solar_factor=solar_factor)


def _proposals(
    params: Params, idle: Interval, lmp: Float[np.ndarray, " row"], rng: np.random.Generator
) -> Float[np.ndarray, "row trade"]:
    """What each microgrid proposes, each in one of the ways of `PROPOSALS`."""
    grids, shape, spread = params.microgrids, idle.pv_kw.shape, params.market.half_spread_per_kwh
    least_kw, most_kw = export_range(grids, idle)
    # The battery may not do more than the microgrid alone can use or feed, as in the market.
    rating_kw = grids.battery_rating_kw
    charge_kw, discharge_kw = np.maximum(-rating_kw, -most_kw), np.minimum(rating_kw, -least_kw)
    battery_kw = rng.uniform(charge_kw, np.maximum(discharge_kw, charge_kw))
    interval = replace(idle, battery_kw=battery_kw)
    near = lmp[:, None] + rng.uniform(-spread, spread, shape)
    wide = lmp[:, None] * rng.uniform(0.0, 4.0, shape)
    import_kw, export_kw = least_kw + charge_kw, most_kw + discharge_kw
    ways = (
        export_at(grids, interval, near, "right"),
        export_at(grids, interval, wide, "right"),
        rng.uniform(import_kw, export_kw),
        np.where(rng.random(shape) < 0.5, import_kw, export_kw),
        np.zeros(shape),
    )
    way = rng.choice(len(PROPOSALS), size=shape, p=list(PROPOSALS.values()))
    return np.choose(way, ways)


def network_digest(dso: OpfDso) -> str:
    """SHA-256 of all that the DSO's answers depend on beside the question: network, trades, generators and rules."""
    feeder, penalty = dso.feeder, dso.penalty
    names = ("parent", "r_ohm", "x_ohm", "base_kv", "v_min_pu", "v_max_pu", "i_max_a", "capacitor_kvar", "load_kw")
    found = hashlib.sha256()
    numbers = [np.asarray(getattr(feeder, name), dtype=float) for name in names]
    numbers += [np.asarray(getattr(dso.generators, f.name), dtype=float) for f in fields(dso.generators)]
    numbers += [dso.trade_bus.astype(float), np.array([feeder.v_source_pu, dso.substation_limit_kva])]
    coefficients = (penalty.kappa_per_kwh, penalty.voll_per_kwh, penalty.lambda_corr_per_kw2h, penalty.c_ls_per_kw2h)
    numbers += [np.asarray(value, dtype=float) for value in coefficients]
    for values in numbers:
        # Ratings come from a power flow, whose last digits are the processor's.
        found.update(" ".join(f"{value:.9g}" for value in values.flatten()).encode() + b"\n")
    found.update(f"{penalty.energy_at_lmp} {dso.upper_voltage.value}".encode())
    return found.hexdigest()
