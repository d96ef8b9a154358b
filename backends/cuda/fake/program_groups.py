"""Programs of a launch interpreted side by side: a step of all of them is one call of numpy.

The interpreter takes longer for a step of one program than numpy does for its elements. Here what
programs hold is one array, whose first axis counts programs, or has one element where all of them
hold the same. Where conditions or loops of programs differ, what the group has stored is taken
back, and those that go the same way begin anew, as a group of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np


class Apart(BaseException):
    """A group cannot go on together. ways: a number for each program, alike where they go the same
    way; None: each has to be interpreted by itself. It is no Exception, as Triton wraps those."""

    def __init__(self, ways: Any = None) -> None:
        super().__init__()
        self.ways = ways


def agreed(data: Any) -> Any:
    """What the first element of all programs is. Raises Apart where they differ."""
    firsts = data.reshape(len(data), -1)[:, 0]
    kinds, ways = np.unique(firsts, return_inverse=True)  # NaN is NaN there
    if len(kinds) > 1:
        raise Apart(ways)
    return firsts[0]


def _alone(*_: Any, **__: Any) -> NoReturn:
    raise Apart


class GroupBuilder:
    """What the interpreter's builder does, for a group of programs. Mixed into that builder.

    plain: the interpreter's class; interpreter: its module; numbers: of the programs.
    """

    plain: Any
    interpreter: Any
    numbers: Any

    def begin(self, numbers: Any) -> None:
        """Interpret these programs, by their numbers."""
        self.numbers = numbers
        self._stores: list[tuple[Any, Any, Any]] = []

    def take_back(self) -> None:
        """Give memory the elements that it had before the group began."""
        for pointers, before, mask in reversed(self._stores):
            self.interpreter._interpreter.store(pointers, before, mask)

    def _handle(self, data: Any, dtype: Any) -> Any:
        return self.interpreter.TensorHandle(data, dtype)

    def _aligned(self, *handles: Any) -> list[Any]:
        """Handles whose arrays are `aligned`."""
        arrays = aligned([handle.data for handle in handles])
        kinds = (handle.dtype for handle in handles)
        return [self._handle(array, dtype) for array, dtype in zip(arrays, kinds, strict=True)]

    def create_get_program_id(self, axis: int) -> Any:
        """The numbers of the programs; a launch has one axis."""
        numbers = self.numbers if axis == 0 else np.zeros(1)
        return self._handle(numbers.astype(np.int32), self.interpreter.tl.int32)

    # operators of several operands -----------------------------------------------------------

    def binary_op(self, lhs: Any, rhs: Any, op: Any) -> Any:
        """An operator of two operands."""
        return self.plain.binary_op(self, *self._aligned(lhs, rhs), op)

    def ternary_op(self, lhs: Any, rhs: Any, other: Any, op: Any) -> Any:
        """An operator of three operands."""
        return self.plain.ternary_op(self, *self._aligned(lhs, rhs, other), op)

    def create_idiv(self, lhs: Any, rhs: Any) -> Any:
        """Division that rounds towards zero."""
        return self.plain.create_idiv(self, *self._aligned(lhs, rhs))

    def create_umulhi(self, lhs: Any, rhs: Any) -> Any:
        """The upper half of a product."""
        return self.plain.create_umulhi(self, *self._aligned(lhs, rhs))

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        """A product and a sum, rounded once."""
        return self.plain.create_fma(self, *self._aligned(x, y, z))

    def create_addptr(self, pointer: Any, offset: Any) -> Any:
        """Pointers some elements further."""
        return self.plain.create_addptr(self, *self._aligned(pointer, offset))

    # memory ----------------------------------------------------------------------------------

    def create_masked_load(
        self, pointers: Any, mask: Any, other: Any, policy: Any, volatile: Any
    ) -> Any:
        """The elements at pointers, those of every program."""
        dtype = pointers.get_element_ty()
        element = self.interpreter._get_np_dtype(dtype)
        if other is None:
            other = self._handle(np.zeros(1, element), dtype)
        aligned = self._aligned(pointers, mask, other)
        arrays = np.broadcast_arrays(*(handle.data for handle in aligned))
        return self._handle(self.interpreter._interpreter.load(*arrays, element), dtype)

    def create_masked_store(self, pointers: Any, value: Any, mask: Any, policy: Any) -> None:
        """Store elements, and keep what was there before."""
        aligned = self._aligned(pointers, value, mask)
        places, values, valid = np.broadcast_arrays(*(handle.data for handle in aligned))
        memory = self.interpreter._interpreter
        before = memory.load(places, valid, np.zeros_like(values), values.dtype)
        self._stores.append((places, before, valid))
        memory.store(places, values, valid)

    # shapes ----------------------------------------------------------------------------------

    def create_make_range(self, kind: Any, start: int, stop: int) -> Any:
        """start, start + 1, ... stop - 1."""
        return self._handle(np.arange(start, stop, dtype=np.int32)[None], self.interpreter.tl.int32)

    def create_reshape(self, arg: Any, shape: Any, reorder: Any) -> Any:
        """The same elements in another shape."""
        return self._handle(arg.data.reshape(len(arg.data), *shape), arg.dtype.scalar)

    def create_trans(self, arg: Any, axes: Any) -> Any:
        """Axes in another order."""
        order = 0, *(axis + 1 for axis in axes)
        return self._handle(np.transpose(arg.data, order), arg.dtype.scalar)

    def create_expand_dims(self, arg: Any, axis: int) -> Any:
        """One more axis, of one element."""
        return self._handle(np.expand_dims(arg.data, axis + 1), arg.dtype.scalar)

    def create_broadcast(self, arg: Any, shape: Any) -> Any:
        """Axes of one element made longer."""
        return self._handle(np.broadcast_to(arg.data, (len(arg.data), *shape)), arg.dtype.scalar)

    def create_splat(self, kind: Any, arg: Any) -> Any:
        """A block of one number of each program."""
        data = _raised(arg.data, 1 + len(kind.shape))
        whole = np.broadcast_to(data, (len(data), *kind.shape))
        return self._handle(whole, arg.dtype.scalar)

    def create_unsplat(self, arg: Any) -> Any:
        """The number that a block of one element is."""
        return self._handle(arg.data.reshape(len(arg.data)), arg.dtype.scalar)

    def create_join(self, lhs: Any, rhs: Any) -> Any:
        """Two blocks side by side, along a new last axis."""
        pair = np.broadcast_arrays(lhs.data, rhs.data)
        return self._handle(np.stack(pair, axis=-1), lhs.dtype.scalar)

    create_cat = create_gather = create_histogram = create_dot_scaled = create_print = _alone
    create_atomic_cas = create_atomic_rmw = create_atomic_load = create_atomic_store = _alone
    create_atomic_poll = create_make_tensor_descriptor = _alone


def aligned(arrays: Sequence[Any]) -> list[Any]:
    """Arrays of one rank: numbers of programs as blocks of one element."""
    rank = max(array.ndim for array in arrays)
    return [array if array.ndim == rank else _raised(array, rank) for array in arrays]


def _raised(data: Any, rank: int) -> Any:
    return data.reshape(len(data), *[1] * (rank - 1))


def group_builder(interpreter: Any) -> Any:
    """A builder for groups of programs. interpreter: Triton's module, mended by `mend_groups`."""
    plain = interpreter.InterpreterBuilder
    names = {"plain": plain, "interpreter": interpreter}
    return type("TogetherBuilder", (GroupBuilder, plain), names)()


def _in_group(interpreter: Any) -> bool:
    return isinstance(interpreter.interpreter_semantic.builder, GroupBuilder)


def mend_groups(interpreter: Any) -> None:
    """Have conditions, numbers of loops, and reductions know of groups of programs."""
    given = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        given(tensor, scope)
        truth, number, transposed = tensor.__bool__, tensor.__index__, tensor.T

        def decided(self: Any) -> bool:
            data = self.handle.data
            if not _in_group(interpreter):
                return bool(truth(self))
            return True if data.size > len(data) else bool(agreed(data))

        def counted(self: Any) -> int:
            return int(agreed(self.handle.data) if _in_group(interpreter) else number(self))

        def turned(self: Any) -> Any:
            return _alone() if _in_group(interpreter) else transposed.fget(self)

        scope.set_attr(tensor, "__bool__", decided)
        scope.set_attr(tensor, "__index__", counted)
        scope.set_attr(tensor, "T", property(turned))

    interpreter._patch_lang_tensor = patch
    _mend_reductions(interpreter)


def _mend_reductions(interpreter: Any) -> None:
    """Have reductions by functions of kernels fold halves of a block, as a GPU does, in place of
    element after element."""
    reductions, scans = interpreter.ReduceOps, interpreter.ScanOps
    given, scanned = reductions.apply_impl, scans.apply_impl

    def apply_reduction(self: Any, operands: Any) -> Any:
        return folded(self, operands) if _in_group(interpreter) else given(self, operands)

    def apply_scan(self: Any, operands: Any) -> Any:
        return _alone() if _in_group(interpreter) else scanned(self, operands)

    def folded(self: Any, operands: Any) -> list[Any]:
        first = 1 if _in_group(interpreter) else 0  # axis of a block
        shape = operands[0].handle.data.shape[first:]
        axis = 0 if self.axis is None else self.axis
        arrays = [operand.handle.data for operand in operands]
        if self.axis is None:
            arrays = [array.reshape(*array.shape[:first], -1) for array in arrays]
        while arrays[0].shape[first + axis] > 1:
            split = [np.split(array, 2, first + axis) for array in arrays]
            pairs = [
                _tensor(interpreter, halves[side], operand.dtype, first)
                for side in (0, 1)
                for halves, operand in zip(split, operands, strict=True)
            ]
            found = self.combine_fn.fn(*pairs)
            results = found if isinstance(found, tuple) else (found,)
            arrays = [result.handle.data for result in results]
        kept = [1 if self.axis in (None, n) else size for n, size in enumerate(shape)]
        if not self.keep_dims:
            kept = [] if self.axis is None else [*kept[:axis], *kept[axis + 1 :]]
        return [
            _tensor(interpreter, array.reshape((*array.shape[:first], *kept)), operand.dtype, first)
            for array, operand in zip(arrays, operands, strict=True)
        ]

    reductions.apply_impl, reductions.generic_reduce = apply_reduction, folded
    scans.apply_impl = apply_scan


def _tensor(interpreter: Any, array: Any, dtype: Any, first: int) -> Any:
    """A block, or a number, of an array whose axes are those of a block from `first` on."""
    tl = interpreter.tl
    shape = list(array.shape[first:])
    data = array.astype(interpreter._get_np_dtype(dtype), copy=False)
    kind = tl.block_type(dtype, shape) if shape else dtype
    handle = interpreter.TensorHandle(data if data.ndim else data.reshape(1), dtype.scalar)
    return tl.tensor(handle, kind)


def run_programs(
    interpreter: Any,
    function: Any,
    count: int,
    arguments: Mapping[str, Any],
    together: int,
) -> None:
    """Run the programs 0 to count - 1 of a launch, up to so many of them together.

    function: Triton's `InterpretedFunction`. arguments: its tensors, by name.
    """
    code: Callable[..., None] = function.rewrite()
    one, semantic = interpreter.interpreter_builder, interpreter.interpreter_semantic
    group = group_builder(interpreter)
    group.options = one.options
    for builder in (one, group):
        builder.set_grid_dim(count, 1, 1)
    scope = interpreter._patch_lang(code)
    try:
        for start in range(0, count, together):
            pending = [np.arange(start, min(start + together, count))]
            while pending:
                numbers = pending.pop()
                if len(numbers) > 1:
                    semantic.builder = group
                    pending += _parted(group, code, arguments, numbers)
                    semantic.builder = one
                else:
                    one.set_grid_idx(int(numbers[0]), 0, 0)
                    code(**arguments)
    finally:
        semantic.builder = one
        scope.restore()


def _parted(
    group: Any, code: Callable[..., None], arguments: Mapping[str, Any], numbers: Any
) -> list[Any]:
    """Run a group; the parts of it, the last one first, that have to be run instead: none where it
    went on together."""
    group.begin(numbers)
    try:
        code(**arguments)
    except Apart as apart:
        group.take_back()
        ways = numbers if apart.ways is None else apart.ways
        return [numbers[ways == way] for way in np.unique(ways)[::-1]]
    return []
