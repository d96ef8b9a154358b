"""Calls like the last one, made by the library's own code (`python.c`) without the interpreter.

A small model takes a few microseconds, as long as Python takes to look at two arrays. Once shapes
are bound, what a call does is known: the library gets the few functions of the interpreter that it
needs, and answers such a call alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import abi
from .slots import Array, Input, Output

# Inputs as they were given -> outputs by name; None where names, types or shapes are not those of
# the last call, before anything ran; or the status of a run that failed.
Repeat = Callable[[tuple[Any, ...]], dict[str, Array] | int | None]

_FUNCTIONS = (
    "Py_IncRef",
    "Py_DecRef",
    "PyObject_Type",
    "PyTuple_Size",
    "PyTuple_GetItem",
    "PyDict_Size",
    "PyDict_GetItemWithError",
    "PyDict_New",
    "PyDict_SetItem",
    "PyObject_GetBuffer",
    "PyBuffer_Release",
    "PyObject_CallNoArgs",
    "PyLong_FromLong",
    "PyErr_Clear",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyCapsule_New",
    "PyCapsule_GetPointer",
    "PyCFunction_NewEx",
)


def never(inputs: tuple[Any, ...]) -> None:
    """The repetition of a call that has not been: none."""
    return


def _interpreter() -> ctypes.Array[ctypes.c_void_p] | None:
    """The struct `api` of python.c; None in an interpreter without CPython's functions."""
    try:
        found = [getattr(ctypes.pythonapi, name) for name in _FUNCTIONS]
    except AttributeError:
        return None
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in found]
    objects = (id(dict), id(np.ndarray), id(None))
    return (ctypes.c_void_p * (len(addresses) + len(objects)))(*addresses, *objects)


_API = _interpreter()


def _format(dtype: np.dtype[Any]) -> bytes | None:
    """How the buffer protocol describes elements of a type; None for types it does not know."""
    try:
        return np.empty((), dtype).data.format.encode()
    except ValueError:
        return None


def _objects(values: Sequence[Any]) -> ctypes.Array[Any]:
    return (ctypes.py_object * max(len(values), 1))(*values)


def repetition(
    library: ctypes.CDLL,
    instance: ctypes.c_void_p,
    tensors: tuple[ctypes.Array[abi.DLTensor], ctypes.Array[abi.DLTensor]],
    inputs: Sequence[Input],
    outputs: Sequence[Output],
) -> Repeat:
    """A function for the bound slots of an instance of a loaded library.

    It is valid until a slot is bound to another shape, and must be gone before the library is. It
    never repeats where an input's type has no buffer format (bf16 of ml_dtypes).
    """
    name = "ts_python_repetition"
    given = [slot for slot in inputs if slot.shape is not None]
    texts = {slot.spec.name: _format(slot.dtype) for slot in given}
    if _API is None or None in texts.values() or not hasattr(library, name):
        return never
    make = ctypes.PyDLL(None, handle=library._handle)[name]  # holds the interpreter's lock
    make.restype = ctypes.py_object
    places = [texts.get(slot.spec.name) for slot in inputs]  # None: left out
    formats = (ctypes.c_char_p * max(len(places), 1))(*places)
    early = bytes(slot.buffer is None for slot in outputs)
    makers = [slot.receive if slot.buffer is None else slot.buffer.copy for slot in outputs]
    function: Repeat = make(
        _API,
        instance,
        *tensors,
        _objects([slot.spec.name for slot in inputs]),
        formats,
        _objects([slot.spec.name for slot in outputs]),
        _objects(makers),
        early,
        ctypes.py_object((formats, early)),
    )
    return function
