"""Random inputs: ranges read off the graph, sizes of symbolic dims."""

from __future__ import annotations

from itertools import islice

import numpy as np

from tensmith.compiler.ir import DType, Graph, Node, TensorType, Value, constant, symbol
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.driver.samples import INTEGER_LIMIT, Sampler


def _input(name: str, dtype: DType, *shape) -> Value:
    dims = tuple(symbol(dim) if isinstance(dim, str) else dim for dim in shape)
    return Value(TensorType(dtype, dims), name)


def _gather_graph(rows: int) -> Graph:
    ids = _input("ids", DType.I64, "batch", "length")
    nodes = []
    build = Builder(nodes)
    narrow = build.emit("cast", [ids], {"dtype": DType.I32})
    table = constant(np.zeros((rows, 2), np.float32))
    return Graph([ids], [build.emit("gather", [table, narrow], {"axis": 0})], nodes)


def test_token_ids_stay_below_the_table() -> None:
    sampler = Sampler(_gather_graph(5))
    ids = sampler.draw({"batch": 8, "length": 64}, 0)["ids"]
    assert ids.shape == (8, 64)
    assert ids.dtype == np.int64
    assert set(np.unique(ids)) == set(range(5))


def test_smallest_table_counts() -> None:
    graph = _gather_graph(50)
    table = constant(np.zeros((3, 2), np.float32))
    graph.outputs.append(Builder(graph.nodes).emit("gather", [table, graph.inputs[0]], {"axis": 0}))
    assert Sampler(graph).draw({"batch": 8, "length": 64}, 0)["ids"].max() == 2


def test_elements_that_are_looked_up_do_not_index() -> None:
    data, index = _input("data", DType.I64, 10), _input("index", DType.I64, 2)
    nodes = []
    picked = Builder(nodes).emit("gather", [data, index], {"axis": 0})
    table = constant(np.zeros(4, np.float32))
    out = Builder(nodes).emit("gather", [table, picked], {"axis": 0})
    drawn = Sampler(Graph([data, index], [out], nodes)).draw({}, 0)
    assert drawn["data"].max() < 4
    assert drawn["index"].max() < 10


def test_masks_are_zeros_and_ones() -> None:
    mask = _input("attention_mask", DType.I64, 4, 100)
    assert set(np.unique(Sampler(Graph([mask])).draw({}, 0)["attention_mask"])) == {0, 1}


def test_running_sums_are_of_zeros_and_ones() -> None:
    x = _input("x", DType.I64, 1, 100)
    nodes = []
    attrs = {"axis": 1, "exclusive": False, "reverse": False}
    y = Builder(nodes).emit("cumsum", [x], attrs)
    assert Sampler(Graph([x], [y], nodes)).draw({}, 0)["x"].max() == 1


def test_scalars_take_the_constants_they_are_compared_with() -> None:
    rate = _input("rate", DType.I64)
    nodes = []
    y = Builder(nodes).emit("eq", [rate, constant(np.int64(16000))])
    assert Sampler(Graph([rate], [y], nodes)).draw({}, 0)["rate"] == 16000


def test_divisors_are_not_zero() -> None:
    for dtype in (DType.I64, DType.I8, DType.U8):
        x, y = _input("x", dtype, "n"), _input("y", dtype, "n")
        graph = Graph([x, y], [], [])
        build = Builder(graph.nodes)
        graph.nodes.append(Node("check_nonzero", [y], [], {"what": "a divisor"}))
        graph.outputs.append(build.emit("div", [x, y], {}))
        drawn = Sampler(graph).draw({"n": 4000}, 0)
        assert drawn["y"].min() > 0
        assert drawn["x"].min() <= 0


def test_other_types() -> None:
    inputs = [
        _input("byte", DType.U8, 1000),
        _input("flag", DType.BOOL, 100),
        _input("number", DType.I32, 100),
        _input("half", DType.F16, 100),
    ]
    drawn = Sampler(Graph(inputs)).draw({}, 0)
    assert (drawn["byte"].min(), drawn["byte"].max()) == (0, 255)
    assert drawn["flag"].dtype == np.bool_
    assert drawn["number"].max() < INTEGER_LIMIT
    assert drawn["half"].dtype == np.float16


def test_floats_by_parity_of_the_seed() -> None:
    sampler = Sampler(Graph([_input("x", DType.F32, 1000)]))
    assert sampler.draw({}, 0)["x"].min() < 0
    assert sampler.draw({}, 1)["x"].min() >= 0


def test_same_seed_same_values() -> None:
    sampler = Sampler(Graph([_input("x", DType.F32, 10)]))
    np.testing.assert_array_equal(sampler.draw({}, 3)["x"], sampler.draw({}, 3)["x"])


def test_sizes_are_small_and_distinct_first() -> None:
    sampler = Sampler(_gather_graph(5))
    assert sampler.symbols == ("batch", "length")
    assert sampler.batch_symbols == ("batch",)
    tried = list(sampler.candidate_sizes())
    assert tried[0] == {"batch": 2, "length": 3}
    assert {"batch": 1, "length": 512} in tried


def test_without_symbols_there_is_one_size() -> None:
    sampler = Sampler(Graph([_input("x", DType.F32, 10)]))
    assert list(islice(sampler.candidate_sizes(), 3)) == [{}, {}, {}]


def test_quantised() -> None:
    x = _input("x", DType.F32, 4)
    nodes = []
    y = Builder(nodes).emit("cast", [x], {"dtype": DType.I8})
    assert Sampler(Graph([x], [y], nodes)).quantised
    assert not Sampler(_gather_graph(3)).quantised
