"""Loads a compiled shared library and runs it on numpy arrays (stdlib and numpy only)."""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import abi
from .counting import Counters, make_cache, read_counters
from .exchange import Borrowed, in_order
from .forking import between_forks, lock
from .meaning import Presentation
from .opening import check_library, opened
from .repeat import Repeat, never, repetition
from .slots import Array, Input, ModuleError, Output, Shapes, Spec, as_given, read_spec, shapes_of

__all__ = ["Array", "Module", "ModuleError", "Spec", "load"]

_PREDICTED_SHAPES = 64  # input shapes whose output shapes are remembered


class Module:
    """A loaded model. Calls from several threads take turns; `threads` work inside one call."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int = 1,
        max_trips: int = 0,
        *,
        dicts: bool = False,
        device: int = 0,
        stream: int = 0,
        idle: str = "spin",
        cache_bytes: int = 0,
    ) -> None:
        if idle not in abi.IDLE:
            raise ModuleError(f"idle: expected {' or '.join(abi.IDLE)}, got '{idle}'")
        self._stream = stream
        self._handle, self._cache = ctypes.c_void_p(), ctypes.c_void_p()
        self._lock, self._running = lock(), False
        self._life = lock()  # held while the instance is destroyed, or cancelled
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise ModuleError(f"cannot load '{path}': no such file")
        self._again = partial(
            Module, self.path, threads, max_trips, dicts=dicts, device=device, idle=idle,
            cache_bytes=cache_bytes,
        )  # fmt: skip
        self._library: Any = opened(self.path)
        try:
            self._create(threads, max_trips, device, idle, cache_bytes)
            self._present = Presentation(self.outputs, dicts)
        except BaseException:
            self.close()
            raise

    def _create(
        self, threads: int, max_trips: int, device: int, idle: str, cache_bytes: int
    ) -> None:
        library = self._library
        check_library(library, self.path)
        self._cache = make_cache(library, cache_bytes)
        model = library.ts_model_get()
        self.name: str = library.ts_name(model).decode()
        self.manifest: dict[str, Any] = json.loads(library.ts_manifest(model))
        self.inputs = tuple(
            read_spec(
                library.ts_input_info(model, i)[0],
                spec,
                optional=bool(library.ts_input_is_optional(model, i)),
            )
            for i, spec in enumerate(self._described("inputs", library.ts_input_count(model)))
        )
        self.outputs = tuple(
            read_spec(library.ts_output_info(model, i)[0], spec)
            for i, spec in enumerate(self._described("outputs", library.ts_output_count(model)))
        )
        side_file = Path(f"{self.path}.weights")
        options = abi.Options(
            ctypes.sizeof(abi.Options),
            threads,
            os.fsencode(side_file if side_file.is_file() else self.path.parent),
            max_trips,
            device,
            abi.IDLE[idle],
            self._stream,
            self._cache,
        )
        status = library.ts_create(model, ctypes.byref(options), ctypes.byref(self._handle))
        if status:
            raise ModuleError(f"{self.path.name}: {self._message()}", status)
        self.threads: int = library.ts_threads(self._handle)
        self._bind()

    def _described(self, side: str, count: int) -> list[dict[str, Any]]:
        """What the manifest says of each input or output."""
        return list(self.manifest.get(side, ())) or [{}] * count

    def _bind(self) -> None:
        """Descriptors that every call reuses."""
        library = self._library
        model = library.ts_model_get()
        self._in = (abi.DLTensor * max(len(self.inputs), 1))()
        self._out = (abi.DLTensor * max(len(self.outputs), 1))()
        self._in_slots = [
            Input(spec, self._in[i], library.ts_input_info(model, i)[0].dtype)
            for i, spec in enumerate(self.inputs)
        ]
        self._out_slots = [
            Output(spec, self._out[i], library.ts_output_info(model, i)[0].dtype)
            for i, spec in enumerate(self.outputs)
        ]
        self._names = [spec.name for spec in self.inputs]
        # A "?" depends on the values of the inputs, other dimensions on their shapes alone.
        self._predictable = not any("?" in spec.dims for spec in self.outputs)
        self._output_shapes: dict[Shapes, list[tuple[int, ...]]] = {}
        self._owned = True  # whether the instance owns the outputs of the next run
        self._repeat: Repeat = never  # of calls like the last one, while its shapes are bound
        self._arguments = (
            self._handle,
            ctypes.addressof(self._in),
            len(self.inputs),
            ctypes.addressof(self._out),
            len(self.outputs),
        )

    def _run(self) -> None:
        self._check(self._library.ts_run(*self._arguments))

    def _message(self) -> str:
        text: bytes = self._library.ts_last_error(self._handle)
        return text.decode(errors="replace")

    def _arrays(self, values: Sequence[Any]) -> Sequence[Array | None]:
        """Inputs in model order, as arrays of the model's types; None where one is left out."""
        if len(values) == 1 and isinstance(values[0], Mapping):
            values = self._ordered(values[0])
        elif all(spec.optional for spec in self.inputs[len(values) :]):
            values = [*values, *[None] * (len(self.inputs) - len(values))]
        if len(values) != (count := len(self._names)):
            raise ModuleError(f"expected {count} inputs, got {len(values)}: {self._names}")
        return [as_given(v, s) for v, s in zip(values, self._in_slots, strict=True)]

    def _ordered(self, values: Mapping[str, Any]) -> list[Any]:
        try:
            if len(values) == len(self._names):
                return [values[name] for name in self._names]
        except KeyError:
            pass
        needed = [spec.name for spec in self.inputs if not spec.optional]
        missing = [name for name in needed if name not in values]
        unknown = [name for name in values if name not in self._names]
        if not missing and not unknown:
            return [values.get(name) for name in self._names]
        raise ModuleError(f"inputs: missing {missing}, unknown {unknown}; expected {self._names}")

    def _bind_call(self, arrays: Sequence[Array | None]) -> None:
        """Point the inputs at the arrays; where shapes changed, prepare the outputs for them."""
        shapes = shapes_of(arrays)
        if shapes != tuple(slot.shape for slot in self._in_slots):
            self._owned, self._repeat = True, never  # until all is bound to the new shapes
        for array, slot in zip(arrays, self._in_slots, strict=True):
            if array is None:
                slot.leave_out()
                continue
            if array.shape != slot.shape:
                slot.bind(array.shape)
            slot.give(array)
        if not self._owned:
            return
        known = self._output_shapes.get(shapes)
        for index, output in enumerate(self._out_slots):
            if known is None:
                output.unbind()
            else:
                output.bind(known[index])
        if known is not None:
            self._owned = False
            self._repeat = repetition(
                self._library, self._handle, (self._in, self._out), self._in_slots, self._out_slots
            )

    def _execute(self, arrays: Sequence[Array | None]) -> dict[str, Array]:
        again = self._repeat(tuple(arrays))  # of what had to be converted first
        if type(again) is int:
            self._check(again)
        if type(again) is dict:
            return again
        self._bind_call(arrays)
        if not self._owned:
            return self._run_bound()
        self._run()
        results = {slot.spec.name: slot.copy() for slot in self._out_slots}
        if self._predictable and len(self._output_shapes) < _PREDICTED_SHAPES:
            self._output_shapes[shapes_of(arrays)] = [result.shape for result in results.values()]
        return results

    def _run_bound(self) -> dict[str, Array]:
        """Run where the shapes of all outputs are known and their slots bound."""
        results = {slot.spec.name: slot.receive() for slot in self._out_slots}
        self._run()
        for slot in self._out_slots:
            if slot.buffer is not None:
                results[slot.spec.name] = slot.buffer.copy()
        return results

    def _check(self, status: int) -> None:
        if status:
            self._owned, self._repeat = True, never  # a failed run leaves the outputs undefined
            raise ModuleError(self._message(), status)

    def _require_open(self) -> None:
        if not self._handle:
            raise ModuleError("the module is closed")
        if self._running:  # this thread has the lock: a signal handler, an argument's own code
            raise ModuleError("a call of it is in progress: a second one needs another load")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call at a time has its tensors bound. Raises ModuleError within another one."""
        with self._lock:
            self._require_open()
            self._running = True
            try:
                yield
            finally:
                self._running = False

    def __call__(self, *inputs: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, Array]:
        """Run once: `module(x, y)`, or `module({"x": x, "y": y})`; returns arrays by output name.

        Arrays must have the model's element types; other values are converted. Strings are arrays
        of numpy's string type, or of objects. Optional inputs may be left out, or None. Raises
        ModuleError.
        """
        with self._lock:
            if self._running:
                self._require_open()
            again = self._repeat(inputs)
            if type(again) is int:
                self._check(again)
        if type(again) is not dict:
            arrays = self._arrays(inputs)
            with self._turn():
                again = self._execute(arrays)
        return self._present.apply(again) if self._present else again

    def run_into(
        self,
        inputs: Mapping[str, Any] | Sequence[Any],
        outputs: Mapping[str, Any] | Sequence[Any],
    ) -> None:
        """Run once from tensors into tensors that speak DLPack, in model order or by name.

        They are used as they lie, also, by models for GPUs, in a GPU's memory. In a stream of the
        caller's this may return before the outputs on the GPU are made: what follows in the stream
        finds them. Raises ModuleError.
        """
        given = in_order(inputs, self.inputs, "inputs")
        wanted = in_order(outputs, self.outputs, "outputs")
        with self._lock:
            self._require_open()
            sources = Borrowed(self.inputs, given, self._stream)
            targets = Borrowed(self.outputs, wanted, self._stream, written=True)
            self._check(
                self._library.ts_run(
                    self._handle,
                    ctypes.addressof(sources.tensors),
                    len(given),
                    ctypes.addressof(targets.tensors),
                    len(wanted),
                )
            )

    def set_stream(self, stream: int) -> None:
        """Have the runs of a model for GPUs work in a CUstream; 0: in one of its own.

        Raises ModuleError for a model that has no GPU.
        """
        with self._lock:
            self._require_open()
            self._check(self._library.ts_set_stream(self._handle, stream))
            self._stream = stream

    def bench(
        self,
        *inputs: Mapping[str, ArrayLike] | ArrayLike,
        warmup: int = 10,
        iterations: int = 100,
    ) -> NDArray[np.float64]:
        """Durations of `iterations` runs in seconds, measured in C after `warmup` runs."""
        arrays = self._arrays(inputs)
        durations = np.zeros(max(warmup, iterations, 1), np.int64)
        with self._turn():
            self._bind_call(arrays)
            kept = [] if self._owned else [slot.receive() for slot in self._out_slots]
            for count in (warmup, iterations):
                self._check(self._library.ts_bench(*self._arguments, count, durations.ctypes.data))
            del kept
            self._owned, self._repeat = True, never
        return np.asarray(durations[:iterations] * 1e-9, np.float64)

    def counters(self) -> Counters:
        """What this module has done since it was loaded: calls, and rows of a cascade by the stage
        that answered them. Callable while another thread runs it. Raises ModuleError once closed.
        """
        with self._life:
            return read_counters(self._library, self._handle, self._cache)

    def cancel(self) -> None:
        """End the run that another thread has in progress, which raises ModuleError.

        It ends before its next round of a loop or its next kernel of weight. Without a run in
        progress nothing happens; the module can run again.
        """
        with self._life:
            if self._handle:
                self._library.ts_cancel(self._handle)

    def close(self) -> None:
        """Free the instance and unload the library. Closing twice does nothing."""
        with self._lock, self._life:
            if self._library is None:
                return
            self._repeat = never
            if self._handle:
                self._library.ts_destroy(self._handle)
            if self._cache:
                self._library.ts_cache_destroy(self._cache)
            handle, self._library = self._library._handle, None
            self._handle, self._cache = ctypes.c_void_p(), ctypes.c_void_p()
            _ctypes.dlclose(handle)

    def __enter__(self) -> Module:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_library", None) is not None and not sys.is_finalizing():
            between_forks(self.close)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied or unpickled it is loaded anew from its file, and works in a stream of its own."""
        return self._again, ()

    def __repr__(self) -> str:
        def text(specs: tuple[Spec, ...]) -> str:
            return ", ".join(
                f"{s.name}: {s.dtype}[{', '.join(map(str, s.dims))}]{' = ...' * s.optional}"
                for s in specs
            )

        return f"Module({self.name}: ({text(self.inputs)}) -> ({text(self.outputs)}))"


def load(
    path: str | os.PathLike[str],
    threads: int = 1,
    max_trips: int = 0,
    *,
    dicts: bool = False,
    device: int = 0,
    stream: int = 0,
    idle: str = "spin",
    cache_bytes: int = 0,
) -> Module:
    """Load a compiled `.so`. Raises ModuleError.

    threads: 1, more, or 0 for one per CPU. dicts: scores of named classes come as a list of dicts,
    one per row, instead of an array. max_trips: a run whose Loop goes on for more rounds
    fails; 0: any number. Of models for GPUs: device: which GPU, as the driver counts them; stream:
    the CUstream to work in, as a number, 0: one of its own. idle: what threads do between calls:
    "spin" for 0.3 ms, then sleep; or "park": sleep at once, and take no processor time.
    cache_bytes: of memory in which responses are kept: a call of the same inputs gets them again.
    """
    return Module(
        path, threads, max_trips, dicts=dicts, device=device, stream=stream, idle=idle,
        cache_bytes=cache_bytes,
    )  # fmt: skip
