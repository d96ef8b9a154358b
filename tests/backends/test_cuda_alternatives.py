"""Several codes of a contraction in one file, of which its first run takes the fastest."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_models import SM_80
from cuda_runs import needs_triton
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.cuda.fake.install import FakeDriver, install
from tensmith.compiler.errors import RunError, UsageError
from tensmith.runtime.loader import ModuleError

pytestmark = needs_triton
RNG = np.random.default_rng(0)
WEIGHTS = [(RNG.standard_normal(shape) / 8).astype("f4") for shape in ((96, 128), (128, 80))]
X = RNG.standard_normal((64, 96)).astype("f4")
INVALID_VALUE, OUT_OF_RESOURCES, LAUNCH_FAILED = 1, 701, 719


@pytest.fixture(autouse=True)
def driver() -> Iterator[FakeDriver]:
    found = install()
    found.be(80, SM_80)
    yield found
    found.fail("", 0, 0)
    gc.collect()
    assert found.live == (0, 0)


def model() -> Any:
    """Two products with an activation between them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 80])],
        [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(WEIGHTS)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library with three codes of either product."""
    path = tmp_path_factory.mktemp("alternatives") / "model.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSMITH_GPU_CANDIDATES", "3")
        artifact = tensmith.compile(model(), target="cuda:sm_80", name="m")
        artifact.save(path)
    told = [kernel.schedule for kernel in artifact.kernels]
    assert all(text.count("or product") == 2 for text in told), told
    return path.read_bytes()


@pytest.fixture
def library(code: bytes, tmp_path: Path) -> Path:
    """The library as a file of its own, which has timed nothing yet."""
    path = tmp_path / "model.so"
    path.write_bytes(code)
    return path


class Clock:
    """Launches of the codes with these numbers take a millisecond, all others two."""

    def __init__(self, fast: str) -> None:
        self.fast, self.launched = fast, list[str]()

    def __call__(self, kernel: str, programs: int) -> float:
        self.launched.append(kernel)
        return 1.0 if kernel.endswith(self.fast) else 2.0

    def taken(self) -> set[str]:
        """The endings of what was launched since this was asked last."""
        found, self.launched = set(self.launched), []
        return {f"or_{name.rpartition('_or_')[2]}" if "_or_" in name else "first" for name in found}


def right(got: Any) -> None:
    wanted = np.maximum(X.astype("f8") @ WEIGHTS[0], 0) @ WEIGHTS[1]
    np.testing.assert_allclose(got["y"], wanted, rtol=1e-4, atol=1e-4)


def test_the_first_run_takes_what_is_fastest(
    library: Path, tmp_path: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "choices"
    monkeypatch.setenv("TENSMITH_GPU_CHOICES", str(kept))
    clock = Clock("_or_2")
    with driver.timed(clock):
        module = tensmith.load(library)
        right(module(X))
        assert clock.taken() == {"first", "or_1", "or_2"}
        graphs = driver.graph_launches
        for _ in range(3):
            right(module(X))
        assert clock.taken() == {"or_2"}
        assert driver.graph_launches - graphs == 2, "the first record of those alone is new"
        right(tensmith.load(library)(X))
        assert clock.taken() == {"or_2"}, "other instances of the process time nothing"
        other = tmp_path / "other.so"
        other.write_bytes(library.read_bytes())
        right(tensmith.load(other)(X))
        assert clock.taken() == {"or_2"}, "what the file tells is taken"
    lines = kept.read_text().splitlines()
    assert len(lines) == 2
    assert all(line.split(" ", 3)[2] == "2" for line in lines)
    assert all(line.endswith("(an interpreter of sm_80, device 0)") for line in lines)


def test_nothing_is_timed_where_that_is_off(
    library: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSMITH_GPU_CHOICES", "off")
    clock = Clock("_or_1")
    with driver.timed(clock):
        right(tensmith.load(library)(X))
    assert clock.taken() == {"first"}


@pytest.mark.parametrize("call", ["cuEventCreate", "cuEventElapsedTime", "cuLaunchKernelEx"])
def test_a_failure_while_codes_are_timed_is_told(
    call: str, library: Path, driver: FakeDriver
) -> None:
    module = tensmith.load(library)
    driver.fail(call, 2, LAUNCH_FAILED)
    with driver.idle(), pytest.raises(ModuleError, match="LAUNCH_FAILED"):
        module(X)
    with driver.timed(Clock("_or_1")):
        right(module(X))


@pytest.mark.parametrize("error", [INVALID_VALUE, OUT_OF_RESOURCES])
def test_codes_that_the_driver_does_not_launch_are_passed_over(
    error: int, library: Path, driver: FakeDriver
) -> None:
    clock = Clock("")
    with driver.timed(clock):
        module = tensmith.load(library)
        driver.fail("cuLaunchKernelEx", 1, error)
        right(module(X))
        first = {name for name in clock.launched if "_or_" not in name}
        assert len(first) == 1, "that of the other product alone"
        clock.taken()
        right(module(X))
        assert clock.taken() == {"first", "or_1"}


def test_codes_that_are_all_refused_are_an_error(library: Path, driver: FakeDriver) -> None:
    module = tensmith.load(library)
    driver.fail("cuLaunchKernelEx", 1, INVALID_VALUE, times=3)
    with pytest.raises(ModuleError, match="INVALID_VALUE"):
        module(X)
    with driver.timed(Clock("_or_1")):
        right(module(X))


def shared_of(library: Path) -> list[list[int]]:
    """Bytes of shared memory of the codes of each product."""
    return [
        [function["resources"]["sm_80"]["shared_bytes"] for function in kernel["functions"]]
        for kernel in tensmith.load(library).manifest["kernels"]
    ]


def test_codes_that_need_too_much_shared_memory_are_left_out(
    library: Path, driver: FakeDriver
) -> None:
    own = shared_of(library)
    most, least = min(map(max, own)), min(map(min, own))
    assert all(codes[2] >= most > max(codes[:2]) for codes in own), own
    driver.be(80, most - 1)
    clock = Clock("_or_2")
    with driver.timed(clock):
        right(tensmith.load(library)(X))
    assert clock.taken() == {"first", "or_1"}
    driver.be(80, least - 1)
    with pytest.raises(RunError, match=f"needs {least} bytes of shared memory, .* {least - 1}:"):
        tensmith.load(library)


def test_an_open_instance_takes_what_another_has_found(library: Path, driver: FakeDriver) -> None:
    clock = Clock("_or_1")
    with driver.timed(clock):
        one, other = tensmith.load(library), tensmith.load(library)
        right(one(X))
        assert clock.taken() == {"first", "or_1", "or_2"}
        for _ in range(3):
            right(other(X))
        assert clock.taken() == {"or_1"}


def test_numbers_of_codes_that_there_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSMITH_GPU_CANDIDATES", "5")
    with pytest.raises(UsageError, match="there are 1 to 4 codes"):
        tensmith.compile(model(), target="cuda:sm_80")
