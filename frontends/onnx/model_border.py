"""The border of an imported model: its outputs, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import onnx

from ...compiler.errors import InvalidModelError, Unsupported, UnsupportedError
from ...compiler.ir import DType, Meaning, Value
from .cascading.stages import stages_of
from .containers import Growing, Maps, Maybe, Text, ValueList
from .emitter import GraphEmitter
from .reading.declared import check_element_type, contradiction
from .reading.scopes import Missing, NameScope

_RENAME = "rename one of them in the model"
STAGE_TYPES = (DType.BOOL, DType.U8, DType.I32, DType.I64)  # that runtime/counters.c reads


@dataclass(frozen=True)
class Border:
    """The main graph of a model whose nodes are in a scope, lowered."""

    model: onnx.ModelProto
    scope: NameScope
    emitter: GraphEmitter

    @property
    def proto(self) -> onnx.GraphProto:
        """The main graph."""
        return self.model.graph

    def outputs(self, inputs: Sequence[Value]) -> list[Value]:
        """The values that the model gives, each of a node of its own.

        Raises UnsupportedError and InvalidModelError for outputs that are none.
        """
        taken = set(inputs)
        names, found = set[str](), list[Value]()
        for info in {info.name: info for info in self.proto.output}.values():  # some are repeated
            for name, result in self._results(info.name):
                if name in names:
                    reason = f"two outputs are '{name}', one of them an element of a sequence"
                    raise UnsupportedError([Unsupported(info.name, "output", reason, _RENAME)])
                value = self.emitter.real(result)
                if value in taken or value.is_constant:
                    value = self.emitter.emit_node("reshape", [value], {"shape": value.shape})[0]
                value.name = name
                names.add(name)
                taken.add(value)
                found.append(value)
                if name == info.name and not self._is_text(name):
                    check_element_type(info, value.type)
        return found

    def _results(self, name: str) -> list[tuple[str, Value]]:
        """What becomes of an output: itself, or `name_0`, `name_1`, ... of a sequence."""
        entry = self.scope.find(name)
        if isinstance(entry, Missing) and entry.problem is not None:
            raise UnsupportedError([entry.problem])
        if isinstance(entry, Maybe):
            entry = entry.content
        entry = entry.data if isinstance(entry, (Text, Maps)) else entry
        if isinstance(entry, ValueList) and entry.items:
            return [(f"{name}_{i}", item) for i, item in enumerate(entry.items)]
        if entry is None or isinstance(entry, ValueList):
            reason = "an output that holds nothing is not supported"
            raise UnsupportedError([Unsupported(name, "output", reason, "remove the output")])
        if isinstance(entry, Growing):
            reason = "only a run knows how many elements this sequence has"
            remedy = "join or stack them in the model (ConcatFromSequence)"
            raise UnsupportedError([Unsupported(name, "output", reason, remedy)])
        if not isinstance(entry, Value):
            raise InvalidModelError(f"there is no value '{name[:80]}'")
        return [(name, entry)]

    def contradictions(self, values: Sequence[Value], defaults: Container[str]) -> list[str]:
        """What to tell of declared shapes that are not those which the operators give.

        values: the inputs, of which those with defaults are hints, too, and the outputs.
        """
        known = {value.name: value for value in values}
        infos = [info for info in self.proto.input if info.name in defaults]
        infos = [i for i in (*infos, *self.proto.output) if not self._is_text(i.name)]
        pairs = [(info, known.get(info.name)) for info in infos]
        inner = ((info, self.scope.find(info.name)) for info in self.proto.value_info)
        pairs += [(info, entry) for info, entry in inner if isinstance(entry, Value)]
        found = [contradiction(info, value.type) for info, value in pairs if value is not None]
        wrong = list(filter(None, found))
        if not wrong:
            return []
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return [f"the model declares shapes that do not hold: {'; '.join(wrong[:3])}{more}"]

    def _is_text(self, name: str) -> bool:
        return isinstance(self.scope.find(name), Text)

    def meanings(self) -> dict[str, Meaning]:
        """What inputs and outputs stand for that are strings or maps, or tell stages of a
        cascade.

        Raises InvalidModelError where numbers of stages are not of `STAGE_TYPES`.
        """
        found: dict[str, Meaning] = {}
        for info in self.proto.input:
            given = self.scope.values.get(info.name)
            words = tuple(self.emitter.words)
            if isinstance(given, Text):
                found[info.name] = Meaning(strings=True, words=words)
            elif isinstance(given, Maps):
                found[info.name] = Meaning(
                    given.is_text, words, given.keys or (), key_type=given.key_type
                )
        for info in self.proto.output:
            entry = self.scope.find(info.name)
            if isinstance(entry, Text):
                found[info.name] = Meaning(strings=True)
            elif isinstance(entry, Maps):
                found[info.name] = Meaning(entry.is_text, classes=entry.keys or ())
        told = stages_of(self.model)
        if told is not None:
            entry = self.scope.find(told.output)
            if not isinstance(entry, Value) or entry.dtype not in STAGE_TYPES:
                kind = entry.dtype if isinstance(entry, Value) else "no tensor of numbers"
                raise InvalidModelError(
                    f"the output '{told.output[:80]}' is noted to tell stages, and is {kind}, not "
                    f"{', '.join(map(str, STAGE_TYPES))}"
                )
            found[told.output] = Meaning(stages=told.count)
        return found
