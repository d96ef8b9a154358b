"""Two models as one: the smaller answers, and the larger where the smaller is not sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, inliner, numpy_helper, version_converter

from ....compiler.errors import UsageError
from ..reduction.files import whole
from .stages import StagesNote

CONFIDENCES = ("max_softmax", "margin", "entropy")
FIRST_OPSET = 13  # whose ReduceSum takes its axes as an input
SMALL, LARGE, ROUTER = "small/", "large/", "router/"
DEFERRED, CONFIDENCE = "deferred", "confidence"
_PROBABILITIES = ("Softmax",)
_THROUGH = ("Identity", "Reshape", "Flatten", "Squeeze")


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


def cascade_model(stages: CascadeStages, threshold: float) -> onnx.ModelProto:
    """The model that gives the large one's outputs for rows whose confidence is below the
    threshold, else the small one's; and `deferred`, which rows those were.

    Rows are gathered, run and scattered by an `If`; where none is deferred, the large one does not
    run. A large model of a fixed batch runs as a whole if a row of it is deferred. Outputs have the
    names of the large model's. Raises UsageError for models that do not fit together.
    """
    return _Merger(stages).cascade(threshold)


def confidence_model(stages: CascadeStages) -> onnx.ModelProto:
    """The small model with a further output `confidence`, a number for every row."""
    return _Merger(stages).front()


class _Merger:
    def __init__(self, stages: CascadeStages) -> None:
        self.stages = stages
        models = {SMALL: stages.small, LARGE: stages.large}
        models |= {ROUTER: stages.router} if stages.router else {}
        read = {prefix: _inlined(path) for prefix, path in models.items()}
        self.opset = max(FIRST_OPSET, *(_opset(model) for model in read.values()))
        self.models = {
            prefix: _converted(model, self.opset, models[prefix]) for prefix, model in read.items()
        }
        if stages.single:
            for model in self.models.values():
                _single_rows(model)
        self.inputs = self._shared_inputs()
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
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
            self._add("Identity", [SMALL + info.name], info.name)
        self._add("Identity", [score], CONFIDENCE)
        rows = _dims(outputs[0])[:1]
        told = helper.make_tensor_value_info(CONFIDENCE, TensorProto.FLOAT, rows)
        return self._model([*outputs, told], (SMALL,))

    def cascade(self, threshold: float) -> onnx.ModelProto:
        """The whole."""
        self._place(SMALL)
        score = self._confidence()
        limit = self._constant("threshold", np.float32(threshold))
        self._add("Less", [score, limit], DEFERRED)
        numbers = self._add("Cast", [DEFERRED], "deferred_i64", to=TensorProto.INT64)
        count = self._add("ReduceSum", [numbers], "deferred_count", keepdims=0)
        some = self._add("Greater", [count, self._constant("none", np.int64(0))], "some_deferred")
        pairs = self._output_pairs()
        then = self._large_branch(pairs)
        other = [
            helper.make_node("Identity", [SMALL + s.name], [f"kept/{l.name}"]) for s, l in pairs
        ]
        kept = [_renamed(large, f"kept/{large.name}") for _, large in pairs]
        branch = helper.make_graph(other, "kept", [], kept)
        self.nodes.append(
            helper.make_node(
                "If",
                [some],
                [large.name for _, large in pairs],
                name="cascade",
                then_branch=then,
                else_branch=branch,
            )
        )
        rows = _dims(pairs[0][1])[:1]
        outputs = [large for _, large in pairs]
        outputs.append(helper.make_tensor_value_info(DEFERRED, TensorProto.BOOL, rows))
        model = self._model(outputs, (SMALL, LARGE))
        StagesNote(DEFERRED, 2).write(model)
        return model

    def _large_branch(
        self, pairs: Sequence[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]
    ) -> onnx.GraphProto:
        graph = self.graphs[LARGE]
        own: list[onnx.NodeProto] = []
        gathers = not isinstance(_dims(graph.input[0])[0], int)
        if gathers:
            flat = self._constant("flat", np.array([-1], np.int64))
            own.append(helper.make_node("NonZero", [DEFERRED], ["chosen_2d"]))
            own.append(helper.make_node("Reshape", ["chosen_2d", flat], ["chosen"]))
        for info in graph.input:
            name = info.name.removeprefix(LARGE)
            if gathers and self._has_rows(info):
                own.append(helper.make_node("Gather", [name, "chosen"], [info.name], axis=0))
            else:
                own.append(helper.make_node("Identity", [name], [info.name]))
        own += graph.node
        results = []
        for small, large in pairs:
            result = f"deferred/{large.name}"
            own += self._joined(small, large, result, gathers)
            results.append(_renamed(large, result))
        return helper.make_graph(own, "deferred", [], results)

    def _joined(
        self, small: onnx.ValueInfoProto, large: onnx.ValueInfoProto, result: str, gathers: bool
    ) -> list[onnx.NodeProto]:
        """Nodes that put the large model's rows in place of the small one's."""
        ours, theirs = SMALL + small.name, LARGE + large.name
        if gathers:
            column = self._constant("column", np.array([-1, 1], np.int64))
            place = f"{result}/places"
            return [
                helper.make_node("Reshape", ["chosen", column], [place]),
                helper.make_node("ScatterND", [ours, place, theirs], [result]),
            ]
        dims = _dims(large)
        if dims[0] == 1:
            return [helper.make_node("Identity", [theirs], [result])]
        shape = np.array([dims[0], *[1] * (len(dims) - 1)], np.int64)
        mask, wanted = f"{result}/mask", self._constant(f"rows_{large.name}", shape)
        return [
            helper.make_node("Reshape", [DEFERRED, wanted], [mask]),
            helper.make_node("Where", [mask, theirs, ours], [result]),
        ]

    # ------------------------------------------------------------------ confidence

    def _confidence(self) -> str:
        """The name of a float for every row: the more, the surer."""
        kind = self.stages.confidence
        if self.stages.router is not None:
            self._place(ROUTER)
            return self._column(ROUTER, self.models[ROUTER].graph.output[0])
        outputs = {info.name: info for info in self.models[SMALL].graph.output}
        if kind in outputs:
            return self._column(SMALL, outputs[kind])
        if kind not in CONFIDENCES:
            raise UsageError(
                f"the small model has no output '{kind}'",
                remedy=f"choose from {', '.join((*CONFIDENCES, *outputs))}",
            )
        scores = self._scores(list(outputs.values()))
        classes = _dims(scores)[1]
        name = SMALL + scores.name
        if not _is_probability(self.models[SMALL].graph, scores.name):
            name = self._add("Softmax", [name], "probabilities", axis=1)
        if kind == "entropy":
            return self._entropy(name, int(classes))
        best = 2 if kind == "margin" else 1
        wanted = self._constant("best", np.array([best], np.int64))
        self.nodes.append(helper.make_node("TopK", [name, wanted], ["top", "top_places"], axis=1))
        if kind == "max_softmax":
            return self._flat("top")
        self.nodes.append(
            helper.make_node(
                "Split",
                ["top", self._constant("halves", np.array([1, 1], np.int64))],
                ["first", "second"],
                axis=1,
            )
        )
        return self._flat(self._add("Sub", ["first", "second"], "margin"))

    def _entropy(self, probabilities: str, classes: int) -> str:
        """1 less the entropy as a share of the most that it can be."""
        least = self._constant("least", np.float32(1e-30))
        logs = self._add("Log", [self._add("Max", [probabilities, least], "positive")], "logs")
        terms = self._add("Mul", [probabilities, logs], "terms")
        axes = self._constant("classes_axis", np.array([1], np.int64))
        total = self._add("ReduceSum", [terms, axes], "entropy", keepdims=0)
        most = self._constant("most", np.float32(1 / math.log(classes)))
        scaled = self._add("Mul", [total, most], "entropy_share")  # it is negative
        return self._add("Add", [scaled, self._constant("one", np.float32(1))], "sureness")

    def _scores(self, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
        for info in outputs:
            dims = _dims(info)
            floats = info.type.tensor_type.elem_type == TensorProto.FLOAT
            if floats and len(dims) == 2 and isinstance(dims[1], int) and dims[1] > 1:
                return info
        raise UsageError(
            "the small model has no output of scores: floats of shape [rows, classes]",
            remedy="name an output that has a number for every row: --confidence OUTPUT",
        )

    def _column(self, prefix: str, info: onnx.ValueInfoProto) -> str:
        """An output with a number for every row, as floats without further axes."""
        dims = _dims(info)
        if not dims or any(dim != 1 for dim in dims[1:]):
            raise UsageError(
                f"the output '{info.name}' has the shape {dims}, not a number for every row"
            )
        floats = self._add("Cast", [prefix + info.name], "sureness_f32", to=TensorProto.FLOAT)
        return self._flat(floats)

    def _flat(self, name: str) -> str:
        wanted = self._constant("row", np.array([-1], np.int64))
        return self._add("Reshape", [name, wanted], f"{name}_by_row")

    # ------------------------------------------------------------------ parts

    def _place(self, prefix: str) -> None:
        """Put a model's nodes into the main graph, behind inputs of its own names."""
        graph = self.graphs[prefix]
        for info in graph.input:
            self._add("Identity", [info.name.removeprefix(prefix)], info.name)
        self.nodes += graph.node

    def _add(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: object) -> str:
        full = f"cascade/{name}"
        if all(tensor.name != full for tensor in self.weights):
            self.weights.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def _has_rows(self, info: onnx.ValueInfoProto) -> bool:
        """Whether an input's first dim is that of the first input."""
        first = _dims(self.graphs[LARGE].input[0])[0]
        return bool(_dims(info)) and _dims(info)[0] == first

    def _shared_inputs(self) -> list[onnx.ValueInfoProto]:
        """Inputs of the whole: those of the large model, and what others take besides."""
        found: dict[str, onnx.ValueInfoProto] = {}
        for prefix in (LARGE, *(p for p in self.models if p != LARGE)):
            initial = {tensor.name for tensor in self.models[prefix].graph.initializer}
            graph = self.models[prefix].graph
            infos = [info for info in graph.input if info.name not in initial]
            del graph.input[:]
            graph.input.extend(infos)
            for info in infos:
                known = found.setdefault(info.name, info)
                if not _fits(known, info):
                    raise UsageError(
                        f"the input '{info.name}' is {_text(known)} of one model and {_text(info)} "
                        "of another",
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
            if not _fits(one, other):
                raise UsageError(
                    f"the output '{other.name}' is {_text(other)}, that of the small model "
                    f"{_text(one)}",
                    remedy="give models of the same outputs",
                )
        return pairs

    def _model(
        self, outputs: Sequence[onnx.ValueInfoProto], used: Sequence[str]
    ) -> onnx.ModelProto:
        prefixes = (*used, ROUTER) if self.stages.router else used
        weights = [t for p in prefixes for t in self.graphs[p].initializer]
        graph = helper.make_graph(
            self.nodes, "cascade", self.inputs, list(outputs), [*weights, *self.weights]
        )
        domains = {"": self.opset}
        for model in self.models.values():
            domains |= {
                o.domain: o.version for o in model.opset_import if o.domain not in ("", "ai.onnx")
            }
        imports = [helper.make_opsetid(name, version) for name, version in domains.items()]
        version = max(model.ir_version for model in self.models.values())
        return helper.make_model(
            graph, opset_imports=imports, ir_version=max(version, 8), producer_name="tensmith"
        )


# ---------------------------------------------------------------------- models and their interface


def _inlined(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(whole(path))
    return inliner.inline_local_functions(model) if model.functions else model


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def _converted(model: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    if _opset(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UsageError(
            f"'{path}' cannot be converted from opset {_opset(model)} to {opset}",
            why=(str(error).splitlines() or [""])[0],
            remedy="export both models with one opset",
        ) from None


def _single_rows(model: onnx.ModelProto) -> None:
    """Let the first dims of inputs and outputs be 1 where they are open."""
    names = {_dims(info)[0] for info in model.graph.input if _dims(info)}
    for info in (*model.graph.input, *model.graph.output):
        dims = info.type.tensor_type.shape.dim
        if dims and not isinstance(_dims(info)[0], int) and _dims(info)[0] in names | {""}:
            dims[0].dim_value = 1


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in info.type.tensor_type.shape.dim
    ]


def _fits(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    """Whether element types and ranks are the same, and no two sizes differ."""
    a, b = _dims(one), _dims(other)
    types = one.type.tensor_type.elem_type, other.type.tensor_type.elem_type
    return types[0] == types[1] and len(a) == len(b) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int))
        for x, y in zip(a, b, strict=True)
    )  # fmt: skip


def _text(info: onnx.ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()
    return f"{kind}{[dim if dim != '' else '?' for dim in _dims(info)]}"


def _renamed(info: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    """The same type under another name, with open dims."""
    kind = info.type.tensor_type.elem_type
    return helper.make_tensor_value_info(name, kind, [None] * len(_dims(info)))


def _is_probability(graph: onnx.GraphProto, name: str) -> bool:
    """Whether an output is made by a softmax."""
    made = {output: node for node in graph.node for output in node.output}
    node = made.get(name)
    while node is not None and node.op_type in _THROUGH:
        node = made.get(node.input[0])
    return node is not None and node.op_type in _PROBABILITIES
