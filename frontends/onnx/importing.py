"""What lowerings may ask of the importer that they are called by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import onnx

from ...compiler.errors import Unsupported
from ...compiler.ir import Value
from .containers import Content
from .emitter import GraphEmitter
from .reading.external_data import ModelFolder
from .reading.scopes import NameScope


class Importing(Protocol):
    """The import of one model.

    folder: where its external data lies. ranks: declared ones, by name. problems: what is not
    supported so far, by node, operator and reason.
    """

    folder: ModelFolder | None
    emitter: GraphEmitter
    ranks: dict[str, int]
    problems: dict[tuple[str, str, str], Unsupported]

    def inline(
        self,
        function: onnx.FunctionProto,
        inputs: Sequence[Content | None],
        attributes: dict[str, onnx.AttributeProto],
        opsets: Mapping[str, int] | None = None,
    ) -> list[Content | None]:
        """Lower the body of a function on the given inputs; its outputs, None where unsupported."""
        ...

    def region(
        self, proto: onnx.GraphProto, outer: NameScope, inputs: Mapping[str, Content]
    ) -> list[Value]:
        """Lower a subgraph in place; its outputs. Raises NotSupported where one is no tensor."""
        ...

    def region_entries(
        self, proto: onnx.GraphProto, outer: NameScope, inputs: Mapping[str, Content]
    ) -> list[Content]:
        """The same for a subgraph whose outputs may be sequences and optionals."""
        ...
