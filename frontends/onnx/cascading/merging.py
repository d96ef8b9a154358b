"""Two models as one: the smaller answers, and the larger where the smaller is not sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from ....compiler.errors import UsageError
from ....compiler.ir.dims import symbols_of
from .. import load_model
from .confidence import CONFIDENCES, write_column, write_confidence, write_unsure
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

SMALL, LARGE, ROUTER = "small/", "large/", "router/"
DEFERRED, CONFIDENCE = "deferred", "confidence"


@dataclass(frozen=True)
class CascadeStages:
    """The models of a cascade, as files. confidence: how sure the small one is: one of
    `CONFIDENCES`, of its scores, or the name of an output that has a number for every row. router:
    a model whose first output is that number instead. single: rows come one by one, so that nothing
    is gathered.
    """

    small: Path
    large: Path
    confidence: str = CONFIDENCES[0]
    router: Path | None = None
    single: bool = False

    @property
    def stem(self) -> str:
        """For names of files."""
        return f"{self.small.stem}_{self.large.stem}" + "_single" * self.single

    @property
    def names(self) -> tuple[str, ...]:
        """Of the stages."""
        return (self.small.name, self.large.name)

    @property
    def cumulative(self) -> bool:
        """Whether the model of a stage computes those before it, too."""
        return False

    def fronts(self) -> list[onnx.ModelProto]:
        """All stages but the last, with a further output `confidence`, a number for every row."""
        return [_Merger(self).front()]

    def last(self, folder: Path) -> Path:
        """The file of the last stage, by which all are judged. folder: where it may be written."""
        del folder
        return self.large

    def joined(self, thresholds: Sequence[float]) -> onnx.ModelProto:
        """See `cascade_model`."""
        return cascade_model(self, thresholds[0])

    def to_json(self) -> dict[str, object]:
        """For manifests."""
        router = None if self.router is None else self.router.name
        return {"stages": list(self.names), "confidence": self.confidence, "router": router}


def cascade_model(stages: CascadeStages, threshold: float) -> onnx.ModelProto:
    """The model that gives the large one's outputs for rows whose confidence is below the
    threshold, else the small one's; and `deferred`, which rows those were.

    Rows are gathered, run and scattered by an `If`; where none is deferred, the large one does not
    run. A large model of a fixed batch runs as a whole if a row of it is deferred. Outputs have the
    names of the large model's. Raises UsageError for models that do not fit together.
    """
    return _Merger(stages).cascade(threshold)


class _Merger:
    def __init__(self, stages: CascadeStages) -> None:
        self.stages = stages
        models = {SMALL: stages.small, LARGE: stages.large}
        models |= {ROUTER: stages.router} if stages.router else {}
        read = {prefix: read_inlined(path) for prefix, path in models.items()}
        self.opset = max(FIRST_OPSET, *(opset_of(model) for model in read.values()))
        self.models = {
            prefix: converted(model, self.opset, models[prefix]) for prefix, model in read.items()
        }
        if stages.single:
            for model in self.models.values():
                make_single(model)
        self.inputs = self._shared_inputs()
        self.writer = NodeWriter()
        self.graphs = {
            prefix: compose.add_prefix_graph(model.graph, prefix)
            for prefix, model in self.models.items()
        }

    # ------------------------------------------------------------------ what is written

    def front(self) -> onnx.ModelProto:
        """The small model and its confidence."""
        self._place(SMALL)
        score = self._confidence()
        outputs = list(self.models[SMALL].graph.output)
        for info in outputs:
            self.writer.named("Identity", [SMALL + info.name], info.name)
        self.writer.named("Identity", [score], CONFIDENCE)
        rows = dims_of(outputs[0])[:1]
        told = helper.make_tensor_value_info(CONFIDENCE, TensorProto.FLOAT, rows)
        return self._model([*outputs, told], (SMALL,))

    def cascade(self, threshold: float) -> onnx.ModelProto:
        """The whole."""
        writer = self.writer
        self._place(SMALL)
        limit = writer.constant("threshold", np.float32(threshold))
        write_unsure(writer, self._confidence(), limit, DEFERRED)
        some, _ = some_of(writer, DEFERRED)
        pairs = self._output_pairs()
        kept = [renamed(large, f"kept/{large.name}") for _, large in pairs]
        other = [
            helper.make_node("Identity", [SMALL + s.name], [f"kept/{l.name}"]) for s, l in pairs
        ]
        writer.nodes.append(
            helper.make_node(
                "If",
                [some],
                [large.name for _, large in pairs],
                name="cascade",
                then_branch=self._large_branch(pairs),
                else_branch=helper.make_graph(other, "kept", [], kept),
            )
        )
        rows = dims_of(pairs[0][1])[:1]
        outputs = [large for _, large in pairs]
        outputs.append(helper.make_tensor_value_info(DEFERRED, TensorProto.BOOL, rows))
        model = self._model(outputs, (SMALL, LARGE))
        StagesNote(DEFERRED, 2).write(model)
        return model

    def _large_branch(
        self, pairs: Sequence[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]
    ) -> onnx.GraphProto:
        graph = self.graphs[LARGE]
        writer = NodeWriter(weights=self.writer.weights)
        rows = dims_of(graph.input[0])[0]
        gathers = not isinstance(rows, int)
        if gathers:
            self._check_rows()
        mixer = RowMixer(writer, DEFERRED, gathers)
        for info in graph.input:
            name = info.name.removeprefix(LARGE)
            if dims_of(info) and dims_of(info)[0] == rows:
                mixer.gather(name, info.name)
            else:
                writer.named("Identity", [name], info.name)
        writer.nodes += graph.node
        results = []
        for small, large in pairs:
            result = f"deferred/{large.name}"
            mixer.join(SMALL + small.name, LARGE + large.name, dims_of(large), result)
            results.append(renamed(large, result))
        return helper.make_graph(writer.nodes, "deferred", [], results)

    def _check_rows(self) -> None:
        """Raises UsageError where rows of the large model, of which fewer are run, see each other,
        or lie along another axis than the first."""
        graph = load_model(self.models[LARGE])
        rows = graph.inputs[0].shape[0]
        for value in (*graph.inputs, *graph.outputs):
            open_axes = [
                n for n, dim in enumerate(value.shape) if symbols_of(dim) & symbols_of(rows)
            ]
            if value.shape[:1] == (rows,) and open_axes == [0]:
                continue
            if open_axes or value in graph.outputs:
                raise self._not_apart(
                    f"'{value.name}' of the large model has the shape "
                    f"[{', '.join(map(str, value.shape))}]"
                )
        node = mixing_node(graph.outputs, graph.inputs, rows)
        if node is not None:
            raise self._not_apart(
                f"the node '{node.name}' ({node.op}) of the large model goes along "
                "the rows of a batch"
            )

    def _not_apart(self, what: str) -> UsageError:
        return UsageError(
            f"{what}: its rows are not apart",
            remedy="export it with a fixed batch, or give --single for rows that come one by one",
        )

    def _confidence(self) -> str:
        if self.stages.router is not None:
            self._place(ROUTER)
            info = self.models[ROUTER].graph.output[0]
            return write_column(self.writer, ROUTER + info.name, info)
        outputs = list(self.models[SMALL].graph.output)
        return write_confidence(
            self.writer, self.stages.confidence, self.graphs[SMALL], outputs, SMALL, self.opset
        )

    # ------------------------------------------------------------------ parts

    def _place(self, prefix: str) -> None:
        """Put a model's nodes into the main graph, behind inputs of its own names."""
        graph = self.graphs[prefix]
        for info in graph.input:
            self.writer.named("Identity", [info.name.removeprefix(prefix)], info.name)
        self.writer.nodes += graph.node

    def _shared_inputs(self) -> list[onnx.ValueInfoProto]:
        """Inputs of the whole: those of the large model, and what others take besides."""
        found: dict[str, onnx.ValueInfoProto] = {}
        for prefix in (LARGE, *(p for p in self.models if p != LARGE)):
            graph = self.models[prefix].graph
            drop_initial_inputs(graph)
            for info in graph.input:
                known = found.setdefault(info.name, info)
                if not fits(known, info):
                    raise UsageError(
                        f"the input '{info.name}' is {text_of(known)} of one model and "
                        f"{text_of(info)} of another",
                        remedy="give models of the same inputs",
                    )
        return list(found.values())

    def _output_pairs(self) -> list[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]:
        small, large = (list(self.models[p].graph.output) for p in (SMALL, LARGE))
        named = {info.name: info for info in small}
        in_order = not {info.name for info in large} <= set(named)
        if len(small) < len(large):
            raise UsageError(
                f"the small model has {len(small)} output(s), the large one {len(large)}"
            )
        pairs = [(small[n] if in_order else named[info.name], info) for n, info in enumerate(large)]
        for one, other in pairs:
            if not fits(one, other):
                raise UsageError(
                    f"the output '{other.name}' is {text_of(other)}, that of the small model "
                    f"{text_of(one)}",
                    remedy="give models of the same outputs",
                )
        return pairs

    def _model(
        self, outputs: Sequence[onnx.ValueInfoProto], used: Sequence[str]
    ) -> onnx.ModelProto:
        prefixes = (*used, ROUTER) if self.stages.router else used
        weights = [t for p in prefixes for t in self.graphs[p].initializer]
        graph = helper.make_graph(
            self.writer.nodes, "cascade", self.inputs, list(outputs),
            [*weights, *self.writer.weights],
        )  # fmt: skip
        return joined_model(graph, list(self.models.values()), self.opset)
