"""A model with several exits: what lies behind an exit runs for rows that it is not sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, shape_inference

from ....compiler.errors import UsageError
from ....compiler.ir import Dim, Value
from ....compiler.ir.dims import symbols_of
from ....runtime.abi import MOST_STAGES
from .. import load_model
from ..reading.topology import names_used, ordered, subgraphs
from .confidence import CONFIDENCES, write_confidence, write_unsure
from .merging import CONFIDENCE
from .node_writer import (
    FIRST_OPSET,
    NodeWriter,
    RowMixer,
    converted,
    dims_of,
    drop_initial_inputs,
    fits,
    joined_model,
    make_single,
    opset_of,
    read_inlined,
    renamed,
    some_of,
    text_of,
)
from .rows import mixing_node
from .stages import StagesNote

PREFIX = "model/"
EXIT = "exit"
_REMEDY = "export the model with a fixed batch, or give --single for rows that come one by one"


@dataclass(frozen=True)
class ExitStages:
    """A model and its exits: outputs, the earliest first; the last one is what the model says where
    no other is sure. confidence: how sure an exit is: one of `CONFIDENCES`, or the names of outputs
    that have a number for every row, one for each exit but the last. single: rows come one by one.
    Raises UsageError for exits that cannot be.
    """

    model: Path
    exits: tuple[str, ...]
    confidence: tuple[str, ...] = (CONFIDENCES[0],)
    single: bool = False

    def __post_init__(self) -> None:
        if len(self.exits) < 2 or len(set(self.exits)) < len(self.exits):
            raise UsageError(
                f"{', '.join(self.exits)}: a cascade needs two different exits or more",
                remedy="name outputs of the model, the earliest first: --exits EARLY,FINAL",
            )
        if len(self.exits) > MOST_STAGES:
            raise UsageError(
                f"{len(self.exits)} exits: a cascade has {MOST_STAGES} at most",
                remedy="name fewer outputs: --exits EARLY,FINAL",
            )
        if len(self.confidence) not in (1, len(self.exits) - 1):
            raise UsageError(
                f"{len(self.confidence)} confidences for {len(self.exits) - 1} early exit(s)",
                remedy="give one for all, or one for each exit but the last",
            )

    @property
    def stem(self) -> str:
        """For names of files."""
        return f"{self.model.stem}_exits" + "_single" * self.single

    @property
    def names(self) -> tuple[str, ...]:
        """Of the stages."""
        return self.exits

    @property
    def cumulative(self) -> bool:
        """Whether the model of a stage computes those before it, too."""
        return True

    def fronts(self) -> list[onnx.ModelProto]:
        """The model up to each exit but the last, with a further output `confidence`, a number for
        every row."""
        return [_Splitter(self).front(stage) for stage in range(len(self.exits) - 1)]

    def last(self, folder: Path) -> Path:
        """The file of the model without early exits, by which all are judged."""
        path = folder / f"{self.model.stem}_last.onnx"
        model = _Splitter(self).front(len(self.exits) - 1)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path

    def joined(self, thresholds: Sequence[float]) -> onnx.ModelProto:
        """The model that gives the last exit's output for rows of which no other exit is sure, each
        by its threshold, else the first sure one's; and `exit`, which one that was.

        What lies behind an exit is in an `If`, for gathered rows. Where the batch is fixed above 1
        it runs as a whole if a row goes on. Raises UsageError where rows are gathered and cannot be
        told apart in what goes from exit to exit, or one of a value's further axes runs along them.
        """
        return _Splitter(self).cascade(thresholds)

    def to_json(self) -> dict[str, object]:
        """For manifests."""
        return {"stages": list(self.names), "confidence": ",".join(self.confidence), "router": None}


class _Splitter:
    """stage_of: of each node, by its place. names are those of the model behind `PREFIX`."""

    def __init__(self, stages: ExitStages) -> None:
        self.stages = stages
        read = read_inlined(stages.model)
        self.opset = max(FIRST_OPSET, opset_of(read))
        self.model = converted(read, self.opset, stages.model)
        if stages.single:
            make_single(self.model)
        drop_initial_inputs(self.model.graph)
        self.outputs = {info.name: info for info in self.model.graph.output}
        self._check()
        self.graph = compose.add_prefix_graph(self.model.graph, PREFIX)
        self.nodes = list(ordered(self.graph.node))
        self.writer = NodeWriter()
        self.weights = self.writer.weights
        self.kinds = [*stages.confidence] * (
            1 if len(stages.confidence) > 1 else len(self.exits) - 1
        )
        self.stage_of = self._stages()

    @property
    def exits(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.stages.exits

    def _check(self) -> None:
        for name in self.exits:
            if name not in self.outputs:
                raise UsageError(
                    f"the model has no output '{name}'",
                    remedy=f"its outputs are {', '.join(self.outputs)}",
                )
        last = self.outputs[self.exits[-1]]
        for name in self.exits[:-1]:
            if not fits(self.outputs[name], last):
                raise UsageError(
                    f"the exit '{name}' is {text_of(self.outputs[name])}, the last one "
                    f"{text_of(last)}",
                    remedy="exits need one element type and shape",
                )
        if EXIT in (last.name, *(info.name for info in self.model.graph.input)):
            raise UsageError(f"'{EXIT}' is the name of what tells the exit", remedy="rename yours")

    def _stages(self) -> dict[int, int]:
        """Of each node that an exit needs, the first such exit."""
        made = {name: n for n, node in enumerate(self.nodes) for name in node.output if name}
        found: dict[int, int] = {}
        for stage, name in enumerate(self.exits):
            wanted = [PREFIX + name]
            wanted += self._confidence_outputs(stage)
            while wanted:
                place = made.get(wanted.pop())
                if place is not None and place not in found:
                    found[place] = stage
                    wanted += names_used(self.nodes[place])
        return found

    def _confidence_outputs(self, stage: int) -> list[str]:
        """The output that says how sure an exit is, where one does."""
        return [PREFIX + kind for kind in self.kinds[stage : stage + 1] if kind in self.outputs]

    def _of(self, stage: int) -> list[onnx.NodeProto]:
        return [node for n, node in enumerate(self.nodes) if self.stage_of.get(n) == stage]

    # ------------------------------------------------------------------ what is written

    def front(self, stage: int) -> onnx.ModelProto:
        """The model up to an exit; with its confidence where it is not the last. Called once."""
        writer, info = self.writer, self.outputs[self.exits[stage]]
        self._enter()
        for earlier in range(stage + 1):
            writer.nodes += self._of(earlier)
        writer.named("Identity", [PREFIX + info.name], info.name)
        outputs = [info]
        if stage < len(self.exits) - 1:
            writer.named("Identity", [self._confidence(writer, stage, {})], CONFIDENCE)
            rows = dims_of(info)[:1]
            outputs.append(helper.make_tensor_value_info(CONFIDENCE, TensorProto.FLOAT, rows))
        return self._model(writer.nodes, outputs)

    def cascade(self, thresholds: Sequence[float]) -> onnx.ModelProto:
        """The whole."""
        if self.gathers:
            self._check_rows()
        info = self.outputs[self.exits[-1]]
        names: dict[str, str] = {}
        self._enter()
        answer, told = self._level(0, self.writer, names, thresholds)
        self.writer.named("Identity", [answer], info.name)
        self.writer.named("Identity", [told], EXIT)
        rows = dims_of(info)[:1]
        outputs = [info, helper.make_tensor_value_info(EXIT, TensorProto.INT64, rows)]
        model = self._model(self.writer.nodes, outputs)
        StagesNote(EXIT, len(self.exits)).write(model)
        return model

    def _level(
        self, stage: int, writer: NodeWriter, names: Mapping[str, str], thresholds: Sequence[float]
    ) -> tuple[str, str]:
        """What an exit and all behind it give: the name of the answer, and of how many exits more
        each row has gone on ("": none can). names: under which values are there, if not their own.
        """
        writer.nodes += [_with_names(node, names) for node in self._of(stage)]
        own = names.get(PREFIX + self.exits[stage], PREFIX + self.exits[stage])
        if stage == len(self.exits) - 1:
            return own, ""
        limit = writer.constant(f"threshold_{stage}", np.float32(thresholds[stage]))
        score = self._confidence(writer, stage, names)
        deferred = write_unsure(writer, score, limit, f"{writer.tag}deferred")
        some, numbers = some_of(writer, deferred)
        then = self._behind(stage, deferred, own, numbers, names, thresholds)
        kept = NodeWriter(f"kept/{stage}/", self.weights)
        infos = [self._told(kept, own), self._told(kept, numbers, steps=True)]
        results = [f"exits/{stage}/answer", f"exits/{stage}/steps"]
        writer.nodes.append(
            helper.make_node(
                "If", [some], results, name=f"exit_{stage}",
                then_branch=then,
                else_branch=helper.make_graph(kept.nodes, f"kept_{stage}", [], infos),
            )
        )  # fmt: skip
        return results[0], results[1]

    def _behind(
        self, stage: int, deferred: str, own: str, numbers: str, names: Mapping[str, str],
        thresholds: Sequence[float],
    ) -> onnx.GraphProto:  # fmt: skip
        """The branch of rows that go on behind an exit."""
        inner = NodeWriter(f"exits/{stage + 1}/", self.weights)
        dims = dims_of(self.outputs[self.exits[-1]])
        mixer = RowMixer(inner, deferred, self.gathers)
        below = dict(names)
        for name in self._crossing(stage + 1):
            if self.gathers and self._has_rows(name):
                below[name] = mixer.gather(names.get(name, name), f"{inner.tag}{name}")
        answer, steps = self._level(stage + 1, inner, below, thresholds)
        joined = mixer.join(own, answer, dims, f"{inner.tag}joined")
        if steps:
            more = inner.add("Add", [steps, inner.constant("step", np.int64(1))], "more")
            numbers = mixer.join(numbers, more, dims[:1], f"{inner.tag}joined_steps")
        infos = [self._told(inner, joined), self._told(inner, numbers, steps=True)]
        return helper.make_graph(inner.nodes, f"behind_{stage}", [], infos)

    def _told(self, writer: NodeWriter, name: str, *, steps: bool = False) -> onnx.ValueInfoProto:
        """A result of a branch, which is of a node of the branch itself."""
        if steps:
            result = writer.add("Identity", [name], "steps_result")
            return helper.make_tensor_value_info(result, TensorProto.INT64, [None])
        result = writer.add("Identity", [name], "answer_result")
        return renamed(self.outputs[self.exits[-1]], result)

    def _confidence(self, writer: NodeWriter, stage: int, names: Mapping[str, str]) -> str:
        info, kind = self.outputs[self.exits[stage]], self.kinds[stage]
        outputs = [info, *([self.outputs[kind]] if kind in self.outputs else [])]
        return write_confidence(writer, kind, self.graph, outputs, PREFIX, self.opset, names)

    def _enter(self) -> None:
        for info in self.graph.input:
            self.writer.named("Identity", [info.name.removeprefix(PREFIX)], info.name)

    def _model(
        self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        used = {name for node in nodes for name in names_used(node)}
        weights = [tensor for tensor in self.graph.initializer if tensor.name in used]
        graph = helper.make_graph(
            nodes, "exits", list(self.model.graph.input), list(outputs), [*weights, *self.weights]
        )
        return joined_model(graph, [self.model], self.opset)

    # ------------------------------------------------------------------ rows

    @property
    def gathers(self) -> bool:
        """Whether rows that go on are gathered: where the number of rows is open."""
        return not isinstance(dims_of(self.model.graph.input[0])[0], int)

    def _crossing(self, stage: int) -> list[str]:
        """Values that are made before a stage, or given, and used there or behind it."""
        before = {info.name for info in self.graph.input}
        used: set[str] = set()
        for place, node in enumerate(self.nodes):
            own = self.stage_of.get(place, len(self.exits))
            if own < stage:
                before |= set(node.output)
            elif own < len(self.exits):
                used |= names_used(node)
        for later, name in enumerate(self.exits[stage:], stage):
            used |= {PREFIX + name, *self._confidence_outputs(later)}
        return sorted((before & used) - {""})

    def _has_rows(self, name: str) -> bool:
        """Whether a value's first dim is the number of rows; False where it does not depend on it.

        Raises UsageError where it does, in another way.
        """
        dims = self._dims[name]
        rows = self._dims[self.graph.input[0].name][0]
        if dims and dims[0] == rows:
            return True
        if not any(symbols_of(dim) & symbols_of(rows) for dim in dims):
            return False
        raise self._not_apart(name)

    def _check_rows(self) -> None:
        """Raises UsageError where a row that is gathered behind an exit may see the others."""
        rows = self._dims[self.graph.input[0].name][0]
        before = [self._values[name] for name in self._crossing(1)]
        made = [self._values[name] for name in sorted(self._made_behind())]
        node = mixing_node(made, before, rows)
        if node is not None:
            raise UsageError(
                f"the node '{node.name.removeprefix(PREFIX)}' ({node.op}) behind an exit goes "
                "along the rows of a batch: its rows are not apart",
                remedy=_REMEDY,
            )

    def _not_apart(self, name: str) -> UsageError:
        return UsageError(
            f"'{name.removeprefix(PREFIX)}' is used behind an exit, and has the shape "
            f"[{', '.join(map(str, self._dims[name]))}]: its rows are not apart",
            remedy=_REMEDY,
        )

    def _made_behind(self) -> set[str]:
        """Tensors that nodes behind the first exit make."""
        infos = shape_inference.infer_shapes(self.model).graph.value_info
        lists = {PREFIX + info.name for info in infos if not info.type.HasField("tensor_type")}
        later = (self.nodes[place] for place, stage in self.stage_of.items() if stage)
        return {name for node in later for name in node.output} - lists - {""}

    @cached_property
    def _dims(self) -> dict[str, tuple[Dim, ...]]:
        return {name: value.shape for name, value in self._values.items()}

    @cached_property
    def _values(self) -> dict[str, Value]:
        """All that goes behind an exit or is made there, as the importer knows it."""
        names = {name for stage in range(1, len(self.exits)) for name in self._crossing(stage)}
        names |= self._made_behind()
        names.add(self.graph.input[0].name)
        inputs = [info.name.removeprefix(PREFIX) for info in self.graph.input]
        entered = [helper.make_node("Identity", [name], [PREFIX + name]) for name in inputs]
        shown = [onnx.ValueInfoProto(name=f"shown/{name}") for name in sorted(names)]
        copies = [helper.make_node("Identity", [name], [f"shown/{name}"]) for name in sorted(names)]
        model = self._model([*entered, *self.nodes, *copies], shown)
        found = load_model(model).outputs
        return dict(zip(sorted(names), found, strict=True))


def _with_names(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads values under other names, in its subgraphs, too."""
    new = onnx.NodeProto()
    new.CopyFrom(node)
    _rename_uses(new, names)
    return new


def _rename_uses(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename_uses(inner, names)
        for info in graph.output:
            info.name = names.get(info.name, info.name)
