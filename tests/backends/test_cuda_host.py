"""What the runtime asks of NVIDIA's driver: graphs, streams, devices, tensors on the GPU."""

from __future__ import annotations

import gc
import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_models import SM_80, Gpu, expected, library_of, onnx_model, perceptron
from cuda_runs import needs_triton
from onnx import helper

import tensmith
from tensmith.backends.common.toolchain import RUNTIME
from tensmith.backends.common.zig import run_zig
from tensmith.backends.cuda.fake.install import FakeDriver, install
from tensmith.compiler.errors import RunError
from tensmith.runtime.loader import Module, ModuleError

pytestmark = needs_triton
WEIGHTS = perceptron()[1]
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    found = install()
    found.be(80, SM_80)
    yield found
    found.be(80, SM_80)
    found.fail("", 0, 0)
    gc.collect()
    assert found.live == (0, 0), "memory or objects of the driver were not given back"


@pytest.fixture
def gpu(driver: FakeDriver) -> Iterator[Gpu]:
    found = Gpu(driver)
    yield found
    found.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuda")


@pytest.fixture(scope="module")
def library(folder: Path) -> Path:
    return library_of(folder, "cuda:sm_80")


def rows(batch: int) -> Any:
    return np.random.default_rng(batch).standard_normal((batch, 12)).astype("f4")


def right(got: Any, x: Any) -> None:
    np.testing.assert_allclose(got, expected(x, WEIGHTS), rtol=2e-5, atol=1e-6)


def test_what_comes_again_is_a_graph(library: Path, driver: FakeDriver) -> None:
    module = tensmith.load(library)
    before = driver.graph_launches
    for batch, launched in ((5, 0), (5, 1), (3, 1), (3, 2), (5, 3)):
        x = rows(batch)
        right(module(x)["y"], x)
        assert driver.graph_launches - before == launched


def test_many_shapes_take_turns(library: Path, driver: FakeDriver) -> None:
    """More than an instance has graphs for: those that were used last stay."""
    module = tensmith.load(library)
    before = driver.graph_launches
    with driver.idle():
        for batch in (40, *range(39, 0, -1), 1, 30, 40):
            module(rows(batch))
    assert driver.graph_launches - before == 2
    for _ in range(2):
        right(module(rows(40))["y"], rows(40))
    assert driver.graph_launches - before == 4


def test_kernels_that_wait_by_themselves_start_early(folder: Path, driver: FakeDriver) -> None:
    module = tensmith.load(library_of(folder, "cuda"))
    before = driver.early_launches
    right(module(rows(2))["y"], rows(2))
    assert driver.early_launches == before
    driver.be(90, 227 << 10)
    module = tensmith.load(library_of(folder, "cuda"))
    right(module(rows(2))["y"], rows(2))
    assert driver.early_launches > before


def test_tensors_on_the_gpu_are_used_where_they_lie(library: Path, gpu: Gpu) -> None:
    module = tensmith.load(library)
    x, y = gpu.tensor(rows(4)), gpu.tensor(np.zeros((4, 9), "f4"))
    for _ in range(3):
        module.run_into([x], {"y": y})
        right(y.array, rows(4))
        y.array[...] = 0
    assert set(x.streams) == {-1}, "the runtime waits for all of the GPU's work"
    x.array[...] = rows(7)[:4]
    module.run_into([x], [y])
    right(y.array, rows(7)[:4])
    host = np.zeros((4, 9), "f4")
    module.run_into([x], [host])
    right(host, rows(7)[:4])
    module.run_into([rows(4)], [y])
    right(y.array, rows(4))


def test_tensors_that_kernels_cannot_load_at_once_are_copied(library: Path, gpu: Gpu) -> None:
    module = tensmith.load(library)
    x = gpu.tensor(rows(4), shift=4)
    y = gpu.tensor(np.zeros((4, 9), "f4"), shift=8)
    for _ in range(2):
        module.run_into([x], [y])
        right(y.array, rows(4))


def test_a_stream_of_the_callers(library: Path, gpu: Gpu) -> None:
    stream = gpu.stream.value
    assert stream is not None
    module = tensmith.load(library, stream=stream)
    x, y = gpu.tensor(rows(4)), gpu.tensor(np.zeros((4, 9), "f4"))
    for _ in range(3):
        module.run_into([x], [y])
        right(y.array, rows(4))
    assert set(x.streams) == {stream}
    module.set_stream(0)
    module.run_into([x], [y])
    right(module(rows(2))["y"], rows(2))
    module.set_stream(stream)
    module.run_into([x], [y])
    right(y.array, rows(4))


def test_what_the_host_reads_of_tensors_on_the_gpu(gpu: Gpu, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["t", "p"], axis=1),
        helper.make_node("Neg", ["t"], ["y"]),
    ]
    path = tmp_path / "sorted.so"
    model = onnx_model(nodes, {"k": np.array([4], "i8")}, 2)
    tensmith.compile(model, target="cuda:sm_80").save(path)
    module = tensmith.load(path)
    x, y = gpu.tensor(rows(2)), gpu.tensor(np.zeros((2, 4), "f4"))
    module.run_into([x], [y])
    np.testing.assert_array_equal(y.array, -np.sort(rows(2))[:, ::-1][:, :4])


def test_tensors_that_are_refused(library: Path, gpu: Gpu) -> None:
    module = tensmith.load(library)
    good, y = gpu.tensor(rows(4)), gpu.tensor(np.zeros((4, 9), "f4"))
    elsewhere = gpu.tensor(rows(4), device=1)
    with pytest.raises(ModuleError, match=r"'x': it is on GPU 1, the instance on GPU 0"):
        module.run_into([elsewhere], [y])
    apart = gpu.tensor(rows(4))
    apart.strides = (24, 2)
    with pytest.raises(ModuleError, match="make it contiguous"):
        module.run_into([apart], [y])
    small = gpu.tensor(np.zeros((3, 9), "f4"))
    with pytest.raises(ModuleError, match="dimension 0: expected 4, got 3"):
        module.run_into([good], [small])
    with pytest.raises(ModuleError, match="a list is no tensor"):
        module.run_into([[1.0]], [y])
    with pytest.raises(ModuleError, match=r"missing \['x'\], unknown \['z'\]"):
        module.run_into({"z": good}, [y])
    with pytest.raises(ModuleError, match="expected 1 outputs, got 0"):
        module.run_into([good], [])
    module.run_into([good], [y])
    right(y.array, rows(4))


def test_a_model_for_cpus_has_no_gpu(tmp_path: Path, gpu: Gpu) -> None:
    path = tmp_path / "cpu.so"
    tensmith.compile(perceptron()[0], target="x86-64-v3").save(path)
    for device, stream in ((1, 0), (0, 1)):
        with pytest.raises(RunError, match="runs on the CPU alone"):
            tensmith.load(path, device=device, stream=stream)
    module = tensmith.load(path)
    with pytest.raises(ModuleError, match="runs on the CPU alone"):
        module.set_stream(1)
    x, y = gpu.tensor(rows(4)), np.zeros((4, 9), "f4")
    with pytest.raises(ModuleError, match="expected a CPU tensor, got DLPack device type 2"):
        module.run_into([x], [y])
    module.run_into([rows(4)], [y])
    right(y, rows(4))


def test_devices(library: Path, driver: FakeDriver) -> None:
    driver.be(80, SM_80, count=2)
    right(tensmith.load(library, device=1)(rows(2))["y"], rows(2))
    for device in (2, -1):
        with pytest.raises(RunError, match=f"there are GPUs 0 to 1, not {device}"):
            tensmith.load(library, device=device)


def runs(module: Module, gpu: Gpu, *streams: int) -> Any:
    """What a run may ask of the driver, in streams: graphs, copies of tensors, events."""
    x, y = gpu.tensor(rows(1), shift=4), gpu.tensor(np.zeros((1, 9), "f4"))
    for stream in streams:
        module.set_stream(stream)
        for _ in range(2):
            module.run_into([x], [y])
    return y.array


@pytest.mark.parametrize(
    "call",
    [
        "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags",
        "cuGraphLaunch", "cuEventRecord", "cuStreamWaitEvent", "cuCtxSynchronize",
        "cuMemcpyDtoDAsync_v2",
    ],
)  # fmt: skip
def test_a_driver_that_fails(call: str, library: Path, gpu: Gpu, driver: FakeDriver) -> None:
    """Whichever call fails is told, and the runs after it are right again."""
    module = tensmith.load(library)
    driver.fail(call, 1, LAUNCH_FAILED)
    with driver.idle(), pytest.raises(ModuleError, match="LAUNCH_FAILED"):
        runs(module, gpu, 0, gpu.stream.value or 0, 0)
    right(runs(module, gpu, 0), rows(1))


def test_threads_with_graphs_of_their_own(library: Path, driver: FakeDriver) -> None:
    wrong: list[int] = []

    def work(batch: int) -> None:
        module = tensmith.load(library)
        for _ in range(3):
            if not np.allclose(module(rows(batch))["y"], expected(rows(batch), WEIGHTS), 2e-5):
                wrong.append(batch)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_declarations_are_nvidias(tmp_path: Path) -> None:
    """Against cuda.h, which Triton has."""
    spec = importlib.util.find_spec("triton")
    assert spec is not None
    assert spec.origin is not None
    headers = Path(spec.origin).parent / "backends" / "nvidia" / "include"
    if not (headers / "cuda.h").exists():
        pytest.skip("this version of Triton has no cuda.h")
    own = (RUNTIME / "cuda" / "driver.h").read_text()
    numbers = dict(re.findall(r"\b(CU(?:DA)?_[A-Z0-9_]+) = (\d+)", own))
    assert len(numbers) >= 10
    checks = [f'_Static_assert({name} == {value}, "{name}");' for name, value in numbers.items()]
    functions = re.findall(r'X\(\w+, "(\w+)",\s*\\?\s*(\(.*?\))\)\s*\\?\n', own, re.S)
    assert len(functions) >= 35
    for name, parameters in functions:
        kind = parameters.replace("\\", " ").replace("\n", " ")
        checks.append(
            f"_Static_assert(__builtin_types_compatible_p(__typeof__({name}), CUresult {kind}),"
            f' "{name}");'
        )
    source = tmp_path / "declarations.c"
    lines = ["#include <cuda.h>", "#define TS_NVIDIA_DECLARES", '#include "cuda/driver.h"', *checks]
    source.write_text("\n".join(lines))
    includes = (f"-I{headers}", f"-I{RUNTIME}")
    run_zig(["cc", "-std=c11", *includes, "-c", source.name, "-o", "declarations.o"], tmp_path)
