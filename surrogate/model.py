"""The transformer that stands for the DSO: a question in, what would be accepted and the price at every bus out.

    question     loads, proposals, LMP, c_ls, lambda_corr                          kW, kvar, currency
    features     per bus: the five of the P2P paper, the LMP, and what a lossless power flow says
    encoder      pre-norm layers over buses as tokens, each bus with an embedding of its own
    heads        per bus: nodal price, its uncertainty, share of load that is shed
    acceptance   from the nodal price at the trade's bus, by the optimality condition of the DSO's problem

The last line makes a small model exact where a trade is accepted whole. Where a trade is accepted in part, t being
proposed and a accepted, the marginal cost of curtailing it equals its marginal cost to the network:

    price = LMP - kappa sign(t) - 2 lambda_corr (t - a)          under the P2P paper's penalty without the LMP

Solved for a and clipped to [0, t], a price gives an acceptance, and an interval of prices an interval of acceptances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peergrid.grid.dso import OpfDso, accepted_at_price
from peergrid.grid.errors import InvalidQuery
from peergrid.grid.lossless import lossless_flow, lossless_maps
from peergrid.surrogate.questions import Questions, as_number

FEATURES = (
    "active load",
    "power factor",
    "proposed net injection",
    "c_ls",
    "lambda_corr",
    "LMP",
    "squared lossless voltage without trades",
    "squared lossless voltage with trades",
    "lossless active flow without trades",
    "lossless active flow with trades",
    "loading without trades",
    "loading with trades",
)
# What is learned is the transformed price asinh((price - LMP) / this): linear near the LMP, logarithmic far from it.
PRICE_SCALE_PER_KWH = 0.02
# Intervals are calibrated separately by the size of the transformed price (these are the edges), by whether the trade
# is curtailed, and by what the asker knows. "full": all proposals; "local": the others' last accepted injections;
# "ahead": of a later interval, the forecasts of the day before.
GROUP_EDGES = (0.5, 1.5, 2.5)
N_GROUPS = 2 * (len(GROUP_EDGES) + 1)
VIEWS = ("full", "local", "ahead")
PARTS = ("embedding", "encoder", "head")
LEAST_SPREAD, FIRST_SHED = 1e-3, -6.0


@dataclass
class ModelConfig:
    """The size of the encoder; Hydra fills it in."""

    width: int = 48
    layers: int = 2
    heads: int = 2
    feed_forward: int = 96


class Outputs(NamedTuple):
    """Predicted answers: what is accepted of each trade, and at buses (all, or the trades') the rest.

    `spread` is the error of the transformed price that the model itself expects.
    """

    accepted_kw: Tensor  # [row, trade]
    price_per_kwh: Tensor  # [row, bus]
    transformed_price: Tensor  # [row, bus]
    spread: Tensor  # [row, bus]
    shed_share: Tensor  # [row, bus]


class DsoTransformer(nn.Module):
    """An encoder over the buses of one operator's network."""

    network: Network
    feature_mean: Tensor
    feature_scale: Tensor
    target_scale: Tensor
    interval: Tensor

    def __init__(self, dso: OpfDso, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config or ModelConfig()
        self.network = Network(dso)
        width, n_bus = self.config.width, dso.feeder.n_bus
        self.register_buffer("feature_mean", torch.zeros(len(FEATURES)))
        self.register_buffer("feature_scale", torch.ones(len(FEATURES)))
        self.register_buffer("target_scale", torch.ones(()))
        self.register_buffer("interval", torch.zeros(len(VIEWS), N_GROUPS))
        self.embed = nn.Linear(len(FEATURES), width)
        self.bus = nn.Parameter(0.5 * torch.randn(n_bus, width))
        self.encoder = nn.ModuleList([Layer(self.config) for _ in range(self.config.layers)])
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Linear(width, 3)
        with torch.no_grad():
            self.heads.bias[2] = FIRST_SHED  # hardly anything is shed before anything is learned

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The weights of each of `PARTS`; the last layer norm counts as encoder."""
        embedding = [*self.embed.parameters(), self.bus]
        encoder = [*self.encoder.parameters(), *self.norm.parameters()]
        return dict(zip(PARTS, (embedding, encoder, list(self.heads.parameters())), strict=True))

    def normalise(self, inputs: Questions[Tensor], transformed_price: Tensor) -> None:
        """Take mean and spread of the features, and the spread of the targets, from samples."""
        features = self.network.features(inputs).flatten(0, 1)
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0).clamp_min(1e-3))
        self.target_scale.copy_(transformed_price.std().clamp_min(1e-3))

    def forward(self, inputs: Questions[Tensor], *, only_trades: bool = False) -> Outputs:
        """
        Args:
            only_trades: Answer for the trades' buses alone, which saves most of the last layer.
        """
        features = (self.network.features(inputs) - self.feature_mean) / self.feature_scale
        tokens = self.embed(features) + self.bus
        for layer in self.encoder[:-1]:
            tokens = layer(tokens, tokens)
        at_trades = self.network.trade_bus
        tokens = self.encoder[-1](tokens[:, at_trades] if only_trades else tokens, tokens)
        transformed, spread, shed = self.heads(self.norm(tokens)).unbind(-1)
        transformed = transformed * self.target_scale
        price = restore_price(transformed, inputs.lmp_per_kwh)
        of_trades = price if only_trades else price[:, at_trades]
        return Outputs(
            accepted_kw=self.network.accepted(inputs, of_trades),
            price_per_kwh=price,
            transformed_price=transformed,
            spread=F.softplus(spread) + LEAST_SPREAD,
            shed_share=torch.sigmoid(shed),
        )

    def group(self, inputs: Questions[Tensor], outputs: Outputs) -> Tensor:
        """Which of `N_GROUPS` each place is in: by its price less the LMP, and whether its trade is curtailed."""
        size = outputs.transformed_price.abs()
        group = torch.bucketize(size.detach(), torch.tensor(GROUP_EDGES, device=size.device))
        is_cut = (inputs.proposed_kw - outputs.accepted_kw).abs() > 1e-4 * inputs.proposed_kw.abs()
        of_cut = is_cut.long() * (len(GROUP_EDGES) + 1)
        if group.shape == of_cut.shape:
            return group + of_cut
        return group.index_add(1, self.network.trade_bus, of_cut).clamp_max(N_GROUPS - 1)

    def half_width(self, inputs: Questions[Tensor], outputs: Outputs, view: str) -> Tensor:
        """Half the width of the interval of the transformed price, in one of `VIEWS`: `[row, bus]`."""
        return self.interval[VIEWS.index(view)][self.group(inputs, outputs)] * outputs.spread


class Layer(nn.Module):
    """A pre-norm encoder layer whose queries may be fewer than its tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.n_head = config.heads
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, config.feed_forward), nn.GELU(), nn.Linear(config.feed_forward, width)
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        seen = self.norm_attention(tokens)
        asking = seen if queries is tokens else self.norm_attention(queries)
        key, value = self.key_value(seen).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(self._split(self.query(asking)), self._split(key), self._split(value))
        queries = queries + self.out(mixed.transpose(1, 2).flatten(2))
        return queries + self.feed(self.norm_feed(queries))

    def _split(self, x: Tensor) -> Tensor:
        n_row, n_token, width = x.shape
        return x.reshape(n_row, n_token, self.n_head, width // self.n_head).transpose(1, 2)


class Network(nn.Module):
    """What the operator's data say without being learned: lossless power flow, and acceptance from a price."""

    below: Tensor
    rise_p: Tensor
    rise_q: Tensor
    rating_pu: Tensor
    capacitor_kvar: Tensor
    trade_bus: Tensor

    def __init__(self, dso: OpfDso) -> None:
        super().__init__()
        feeder, penalty = dso.feeder, dso.penalty
        maps, base = lossless_maps(feeder), feeder.base_kva
        rating = np.where(np.isfinite(feeder.i_max_a), feeder.i_max_a / feeder.base_a, 10.0)
        rating[0] = 10.0
        arrays = {
            "below": maps.below,
            "rise_p": maps.rise_p,
            "rise_q": maps.rise_q,
            "rating_pu": rating,
            "capacitor_kvar": feeder.capacitor_kvar,
        }
        for name, values in arrays.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.register_buffer("trade_bus", torch.tensor(dso.trade_bus), persistent=False)
        self.base_kva, self.n_bus = base, feeder.n_bus
        self.v_source_pu = float(feeder.v_source_pu)
        if as_number(penalty.lambda_corr_per_kw2h, "lambda_corr_per_kw2h") <= 0:
            raise InvalidQuery("lambda_corr_per_kw2h is 0: then a price does not say how much of a trade is accepted")
        self.kappa = as_number(penalty.kappa_per_kwh, "kappa_per_kwh")
        self.energy_at_lmp = float(penalty.energy_at_lmp)

    def features(self, inputs: Questions[Tensor]) -> Tensor:
        """`FEATURES` of every bus, not normalised: `[row, bus, feature]`."""
        load, load_q = inputs.load_kw, inputs.load_kvar
        proposed = torch.zeros_like(load).index_add(1, self.trade_bus, inputs.proposed_kw)
        net_q = self.capacitor_kvar - load_q

        def flow(net_kw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            v, p, q = lossless_flow(
                net_kw, net_q, self.v_source_pu, below=self.below, rise_p=self.rise_p, rise_q=self.rise_q
            )
            return v, p / self.rating_pu, torch.sqrt(p * p + q * q) / self.rating_pu

        v0, p0, s0 = flow(-load)
        v1, p1, s1 = flow(proposed - load)
        apparent = torch.sqrt(load * load + load_q * load_q).clamp_min(1e-6)

        def at_every_bus(values: Tensor) -> Tensor:
            return values[:, None].expand_as(load)

        columns = (
            load / self.base_kva * self.n_bus,
            load / apparent,
            proposed,
            at_every_bus(torch.log(inputs.c_ls_per_kw2h.clamp_min(1e-6))),
            at_every_bus(torch.log(inputs.lambda_corr_per_kw2h.clamp_min(1e-9))),
            at_every_bus(inputs.lmp_per_kwh),
            v0,
            v1,
            p0,
            p1,
            s0,
            s1,
        )
        return torch.stack(columns, dim=-1)

    def accepted(self, inputs: Questions[Tensor], price_per_kwh: Tensor) -> Tensor:
        """What is accepted of each trade where its bus has this price: `[row, trade]`."""
        return accepted_at_price(
            inputs.proposed_kw,
            price_per_kwh,
            inputs.lmp_per_kwh[:, None],
            kappa_per_kwh=self.kappa,
            lambda_corr_per_kw2h=inputs.lambda_corr_per_kw2h[:, None],
            energy_at_lmp=self.energy_at_lmp,
        )


def restore_price(transformed_price: Tensor, lmp_per_kwh: Tensor) -> Tensor:
    """Prices `[row, bus]` from transformed ones."""
    return lmp_per_kwh[:, None] + PRICE_SCALE_PER_KWH * torch.sinh(transformed_price)


def transform_price(price_per_kwh: Tensor, lmp_per_kwh: Tensor) -> Tensor:
    """Transformed prices `[row, bus]`: what the model learns."""
    return torch.asinh((price_per_kwh - lmp_per_kwh[:, None]) / PRICE_SCALE_PER_KWH)
