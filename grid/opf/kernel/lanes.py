"""Lanes: eight numbers in one register, with the operators of one number; LLVM vectors."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

from peergrid.grid.compiled import in_place

LANES = 8
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_FLAGS = ("contract", "nsz")


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def _everywhere(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        to_all = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, first, to_all)

    return _lanes(types.float64), generate


def _two_lanes(instruction: str) -> Any:
    @intrinsic
    def combine(typing_context: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args, flags=_FLAGS)

        return _lanes(_lanes, _lanes), generate

    return combine


@intrinsic
def _negative(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fneg(args[0], flags=_FLAGS)

    return _lanes(_lanes), generate


@intrinsic
def _root(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = f"llvm.sqrt.v{LANES}f64"
        found = builder.module.globals.get(name)
        return builder.call(found or ir.Function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), name), args)

    return _lanes(_lanes), generate


@intrinsic
def _larger(typing_context: Any, x: Any, y: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _lanes(_lanes, _lanes), generate


def _entry(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:
    """Address of entry [i, f] of a workspace, of all its lanes if it has any."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    strides = [builder.extract_value(array.strides, axis) for axis in range(2)]
    offset = builder.add(builder.mul(args[1], strides[0]), builder.mul(args[2], strides[1]))
    place = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [offset])
    return builder.bitcast(place, kind.as_pointer())


def _load_and_store(kind: Any, value: Any, align: int) -> tuple[Any, Any]:
    @intrinsic
    def load(typing_context: Any, array: Any, i: Any, f: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_entry(context, builder, signature, args, kind), align=align)

        return value(array, types.intp, types.intp), generate

    @intrinsic
    def store(typing_context: Any, array: Any, i: Any, f: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[3], _entry(context, builder, signature, args, kind), align=align)
            return context.get_dummy_value()

        return types.none(array, types.intp, types.intp, value), generate

    return load, store


_load_lanes, _store_lanes = _load_and_store(_VECTOR, _lanes, align=8 * LANES)
_load_one, _store_one = _load_and_store(ir.DoubleType(), types.float64, align=8)


# A small matrix on the stack: once its loops are unrolled, LLVM keeps it in registers.
SCRATCH_COLUMNS = 16


class _ScratchType(types.Type):
    def __init__(self, of_lanes: bool) -> None:
        self.kind = _VECTOR if of_lanes else ir.DoubleType()
        self.value = _lanes if of_lanes else types.float64
        super().__init__(name=f"Scratch{LANES if of_lanes else 1}")


@register_model(_ScratchType)
class _ScratchModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.kind.as_pointer())


@intrinsic
def scratch(typing_context: Any, workspace: Any) -> Any:
    """A matrix of numbers or lanes, as the workspace has them."""
    kind = _ScratchType(workspace.ndim == 3)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entries = ir.Constant(ir.IntType(64), SCRATCH_COLUMNS * SCRATCH_COLUMNS)
        with builder.goto_entry_block():
            return builder.alloca(kind.kind, size=entries)

    return kind(workspace), generate


@intrinsic
def _read(typing_context: Any, matrix: Any, i: Any, f: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = builder.add(builder.mul(args[1], ir.Constant(args[1].type, SCRATCH_COLUMNS)), args[2])
        return builder.load(builder.gep(args[0], [at]))

    return matrix.value(matrix, types.intp, types.intp), generate


@intrinsic
def _write(typing_context: Any, matrix: Any, i: Any, f: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = builder.add(builder.mul(args[1], ir.Constant(args[1].type, SCRATCH_COLUMNS)), args[2])
        builder.store(args[3], builder.gep(args[0], [at]))
        return context.get_dummy_value()

    return types.none(matrix, types.intp, types.intp, matrix.value), generate


def _overload_operator(symbol, combine):
    @overload(symbol)
    def choose(x, y):
        if isinstance(x, _LanesType) and isinstance(y, _LanesType):
            return lambda x, y: combine(x, y)
        if isinstance(x, _LanesType) and isinstance(y, types.Number):
            return lambda x, y: combine(x, _everywhere(float(y)))
        if isinstance(x, types.Number) and isinstance(y, _LanesType):
            return lambda x, y: combine(_everywhere(float(x)), y)
        return None


for _symbol, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _overload_operator(getattr(operator, _symbol), _two_lanes(_instruction))


@overload(operator.neg)
def _choose_neg(x):
    return (lambda x: _negative(x)) if isinstance(x, _LanesType) else None


def root(x):
    """Square root."""


@overload(root)
def _choose_root(x):
    return (lambda x: _root(x)) if isinstance(x, _LanesType) else (lambda x: np.sqrt(x))


def larger(x, y):
    """The larger of two, the second where either is NaN."""


@overload(larger)
def _choose_larger(x, y):
    if isinstance(x, _LanesType):
        return (lambda x, y: _larger(x, y)) if isinstance(y, _LanesType) else lambda x, y: _larger(x, _everywhere(y))
    return lambda x, y: x if x > y else y


def ld(array, i, f):
    """Field f of row i: a number, or lanes."""


@overload(ld)
def _choose_ld(array, i, f):
    if isinstance(array, _ScratchType):
        return lambda array, i, f: _read(array, i, f)
    return (
        (lambda array, i, f: _load_lanes(array, i, f))
        if array.ndim == 3
        else lambda array, i, f: _load_one(array, i, f)
    )


def st(array, i, f, x):
    """Write field f of row i."""


@overload(st)
def _choose_st(array, i, f, x):
    if isinstance(array, _ScratchType):
        if array.value is _lanes and not isinstance(x, _LanesType):
            return lambda array, i, f, x: _write(array, i, f, _everywhere(float(x)))
        return lambda array, i, f, x: _write(array, i, f, x)
    if array.ndim == 2:
        return lambda array, i, f, x: _store_one(array, i, f, float(x))
    if isinstance(x, _LanesType):
        return lambda array, i, f, x: _store_lanes(array, i, f, x)
    return lambda array, i, f, x: _store_lanes(array, i, f, _everywhere(float(x)))


@in_place
def add(a, i, f, x):
    """Add to field f of row i."""
    st(a, i, f, ld(a, i, f) + x)


@in_place
def take(a, i, f, x):
    """Subtract from field f of row i."""
    st(a, i, f, ld(a, i, f) - x)


def n_lanes(array):
    """How many problems a workspace holds."""


@overload(n_lanes)
def _choose_n_lanes(array):
    return (lambda array: LANES) if array.ndim == 3 else (lambda array: 1)


@in_place
def _put_in_lane(array, i, f, lane, x):
    array[i, f, lane] = x


@in_place
def _put(array, i, f, x):
    array[i, f] = x


def put(array, i, f, lane, x):
    """Write field f of row i in one lane."""


@overload(put)
def _choose_put(array, i, f, lane, x):
    if array.ndim == 3:
        return lambda array, i, f, lane, x: _put_in_lane(array, i, f, lane, x)
    return lambda array, i, f, lane, x: _put(array, i, f, x)


def get(array, i, f, lane):
    """Field f of row i in one lane."""


@overload(get)
def _choose_get(array, i, f, lane):
    return (lambda array, i, f, lane: array[i, f, lane]) if array.ndim == 3 else (lambda array, i, f, lane: array[i, f])
