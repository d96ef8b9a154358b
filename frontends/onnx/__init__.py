"""The ONNX frontend: model files to graphs of core operators (opset 7 to the newest)."""

from __future__ import annotations

from pathlib import Path

import onnx

from ...compiler.errors import InvalidModelError, UnsupportedError
from ...compiler.ir import Graph
from ...compiler.knobs import DEFAULTS
from .container_inputs import ValueSpec
from .default_inputs import AUTO, decided, needed_by, replaceable
from .importer import ShapeSpec
from .least_sizes import imported
from .origin import operator_of
from .reading.external_data import ModelFolder
from .reading.foreign import in_folder, pointer
from .reading.stored import store
from .reading.validate import validate
from .reading.wire import Source, read_model

__all__ = ["in_folder", "load", "load_model", "operator_of", "pointer", "store"]


def load(
    path: str | Path,
    *,
    shapes: ShapeSpec | None = None,
    values: ValueSpec | None = None,
    defaults: str | None = None,
) -> Graph:
    """The graph of a model file.

    shapes: input name -> dims that replace the declared ones: numbers, symbol names or dims; "?"
    for a symbol that no other dim has; or "least..most", which leaves a dim as it is declared and
    limits its size. A sequence `x` is given as the shapes of its elements, `x_0`, `x_1` and so on.
    values: input name -> what it always is; the graph has no such input. An array, a list of arrays
    for a sequence, or None for an optional that holds nothing.
    defaults: what becomes of initialisers that are inputs too (`default_inputs.replaceable`); by
    default what the knob of that name says.
    Inputs and outputs keep their ONNX names. A named dimension becomes the symbol of that name, an
    unknown one `<input>_d<axis>`. What the user should know is in the graph's `notes`.

    Raises UsageError (no such file or input), InvalidModelError (malformed), UnsupportedError (all
    nodes that cannot be compiled).
    """
    return _import(read_model(path), shapes, values, defaults)


def load_model(
    model: onnx.ModelProto,
    *,
    folder: Path | None = None,
    shapes: ShapeSpec | None = None,
    values: ValueSpec | None = None,
    defaults: str | None = None,
) -> Graph:
    """The graph of a parsed model; `folder` is where its external data lies. See `load`."""
    where = None if folder is None else ModelFolder.of_folder(folder)
    return _import(Source(model, {}, where), shapes, values, defaults)


def _import(
    source: Source, shapes: ShapeSpec | None, values: ValueSpec | None, defaults: str | None
) -> Graph:
    validate(source)
    mode = str(DEFAULTS.value) if defaults is None else defaults
    names, notes = replaceable(source.model, mode)
    kept = names
    while True:
        try:
            graph = imported(source, shapes or {}, values or {}, kept)
            break
        except (UnsupportedError, InvalidModelError) as error:
            if mode != AUTO or not kept:
                raise
            kept -= needed_by(source.model.graph, kept, error)
    if kept != names:
        notes.append(decided(names - kept))
    graph.notes += notes
    return graph
