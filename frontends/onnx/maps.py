"""Inputs that are maps, as matrices: a row for each map, a column for each key that is read.

An entry that a map lacks is 0, or an empty string, which is what operators put there (ai.onnx.ml,
DictVectorizer and CastMap). Where an operator takes all entries, whatever their keys, the columns
are the entries of the map in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from ...compiler.errors import InvalidModelError
from .reading.schemas import domain_of
from .reading.tensors import UnsupportedType
from .reading.topology import subgraphs

_TEXT, _NUMBER = onnx.TensorProto.STRING, onnx.TensorProto.INT64
KEY_TYPES = {_TEXT: "string", _NUMBER: "int64"}
MAX_COLUMNS = 1 << 24
_SHOWN = 5  # keys that a note names
Key = int | str


@dataclass(frozen=True)
class MapType:
    """What an input's maps are, and what of them is read.

    key_type: of `KEY_TYPES`. element: onnx's number of the type of the values. keys: of the
    columns; None: of all entries, in order.
    """

    key_type: str
    element: int
    keys: tuple[Key, ...] | None

    @property
    def is_text(self) -> bool:
        """Whether the values are strings."""
        return bool(self.element == _TEXT)

    def matrix(self, name: str) -> onnx.ValueInfoProto:
        """The input that takes its place: of any number of maps; strings as such."""
        shape = [None, None if self.keys is None else len(self.keys)]
        return onnx.helper.make_tensor_value_info(name, self.element, shape)

    def note(self, name: str) -> str:
        """What a caller should know of the input."""
        if self.keys is None:
            columns = "the columns are a map's values in the order of its keys"
        else:
            shown = ", ".join(map(repr, self.keys[:_SHOWN]))
            more = len(self.keys) - _SHOWN
            more_text = f" and {more} more, as the manifest lists them" if more > 0 else ""
            columns = f"the columns are the values of {shown}{more_text}; 0 or '' for none"
        return (
            f"input '{name}' is a map, and takes a matrix with a row for each map: {columns}; "
            "in Python a dict, or a list of dicts, will do"
        )


def map_type(info: onnx.ValueInfoProto, graph: onnx.GraphProto) -> MapType | None:
    """That of an input; None where it is no map. Raises UnsupportedType for one that is read in a
    way that no matrix serves."""
    if info.type.WhichOneof("value") != "map_type":
        return None
    kind = info.type.map_type
    if kind.key_type not in KEY_TYPES or not kind.value_type.HasField("tensor_type"):
        raise UnsupportedType("a map of other keys than strings and int64, or of other values")
    found: dict[Key, None] = {}
    takes_all = False
    for node in _readers(graph.node, {info.name}):
        keys = _keys_read(node)
        takes_all |= keys is None
        found.update(dict.fromkeys(keys or ()))
    if takes_all and found:
        raise UnsupportedType("a map of which one operator reads all entries, another some")
    if not takes_all and not found:
        raise UnsupportedType("a map that no operator reads")
    _check_columns(len(found))
    if any(isinstance(key, str) != (kind.key_type == _TEXT) for key in found):
        raise UnsupportedType("a map with keys of another type than the operator's")
    element = kind.value_type.tensor_type.elem_type
    keys = None if takes_all else tuple(found)
    return MapType(KEY_TYPES[kind.key_type], element, keys)


def _check_columns(count: int) -> None:
    if count > MAX_COLUMNS:
        raise UnsupportedType(f"a map of more than {MAX_COLUMNS} keys")


def _readers(nodes: Sequence[onnx.NodeProto], names: set[str]) -> Iterator[onnx.NodeProto]:
    """Nodes that take a value of one of the names, or what Identity makes of it."""
    for node in nodes:
        if names.intersection(node.input):
            if node.op_type == "Identity" and not domain_of(node.domain):
                names.update(node.output)
            else:
                yield node
        for graph in subgraphs(node):
            yield from _readers(graph.node, names)


def _keys_read(node: onnx.NodeProto) -> tuple[Key, ...] | None:
    """The keys that an operator reads of a map; None for all."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if domain_of(node.domain) == "ai.onnx.ml":
        if node.op_type == "DictVectorizer":
            words = attributes.get("string_vocabulary", ())
            numbers = attributes.get("int64_vocabulary", ())
            return (*(word.decode("utf-8", "replace") for word in words), *numbers)
        if node.op_type == "CastMap":
            if attributes.get("map_form", b"DENSE") != b"SPARSE":
                return None
            keys = attributes.get("max_map", 1)
            if keys < 1:
                raise InvalidModelError(f"a sparse CastMap has max_map {keys}: 1 is the least")
            _check_columns(keys)
            return tuple(range(keys))
    raise UnsupportedType(f"a map that the operator {node.op_type} reads")
