"""The DSO's optimal power flow as a layer of a network: exact responses, with gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.grid.dso.gradient import ResponseGradient, respond_with_gradient

INPUTS = ("proposed_kw", "load_kw", "load_kvar", "lmp_per_kwh", "v_min_pu", "v_max_pu", "i_max_a")
OUTPUTS = (
    "accepted_kw",
    "shed_kw",
    "generator_kw",
    "substation_kw",
    "voltage_pu",
    "price_per_kwh",
    "reactive_price_per_kvarh",
)


class OpfLayerOutput(NamedTuple):
    """The response, as tensors of the input's type and device; all but `status` have gradients."""

    accepted_kw: Tensor  # [*batch, trade]
    shed_kw: Tensor  # [*batch, bus]
    generator_kw: Tensor  # [*batch, gen]
    substation_kw: Tensor  # [*batch]
    voltage_pu: Tensor  # [*batch, bus]
    price_per_kwh: Tensor  # [*batch, bus]
    reactive_price_per_kvarh: Tensor  # [*batch, bus]
    status: Tensor  # [*batch] DsoStatus


class OpfLayer(torch.nn.Module):
    """Takes proposals, loads, the price of energy and limits to the DSO's response; has no weights.

    Gradients are those of `respond_with_gradient`: zero where the status is not OPTIMAL, the derivative on one side at
    kinks; first derivatives only. The solver runs on the CPU in double precision, whatever the inputs are.
    """

    def __init__(self, dso: OpfDso) -> None:
        """
        Args:
            dso: The operator; its solver must be "interior_point".
        """
        super().__init__()
        self.dso = dso

    def forward(
        self,
        proposed_kw: Tensor,
        load_kw: Tensor,
        load_kvar: Tensor,
        lmp_per_kwh: Tensor,
        v_min_pu: Tensor | None = None,
        v_max_pu: Tensor | None = None,
        i_max_a: Tensor | None = None,
    ) -> OpfLayerOutput:
        """The response to a batch of queries, of shapes as in `DsoQuery`; limits not given are the feeder's own.

        Raises:
            InvalidQuery: Shapes that do not fit, NaN, or crossed limits.
        """
        inputs = (proposed_kw, load_kw, load_kvar, lmp_per_kwh, v_min_pu, v_max_pu, i_max_a)
        return OpfLayerOutput(*_Respond.apply(self.dso, *inputs))  # type: ignore[no-untyped-call]


class _Respond(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dso: OpfDso, like: Tensor, *others: Tensor | None) -> tuple[Tensor, ...]:
        inputs = (like, *others)
        given: dict[str, Any] = {
            name: x.detach().cpu().double().numpy() for name, x in zip(INPUTS, inputs, strict=True) if x is not None
        }
        batch = given["load_kw"].shape[:-1]
        given["lmp_per_kwh"] = np.broadcast_to(given["lmp_per_kwh"], batch)
        response, ctx.pull_back = respond_with_gradient(dso, DsoQuery(**given))
        ctx.inputs = [None if x is None else (x.shape, x.dtype, x.device) for x in inputs]
        status = torch.as_tensor(np.asarray(response.status), device=like.device)
        ctx.mark_non_differentiable(status)
        found = (torch.as_tensor(getattr(response, name)).to(like) for name in OUTPUTS)
        return (*found, status)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        seed = {name: x.detach().cpu().double().numpy() for name, x in zip(OUTPUTS, of_outputs[:-1], strict=True)}
        found = ctx.pull_back(ResponseGradient(**seed))
        of_inputs: list[Tensor | None] = []
        for name, kind in zip(INPUTS, ctx.inputs, strict=True):
            if kind is None:
                of_inputs.append(None)
                continue
            shape, dtype, device = kind
            # An input that was broadcast collects from everywhere it went.
            of_inputs.append(torch.as_tensor(getattr(found, name)).sum_to_size(shape).to(device, dtype))
        return (None, *of_inputs)
