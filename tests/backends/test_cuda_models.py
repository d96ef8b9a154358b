"""Shared libraries for GPUs, end to end on a driver that is none; real cubins, no GPU."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from cuda_models import SM_80, expected, library_of, onnx_model, perceptron
from cuda_runs import needs_triton
from onnx import TensorProto, helper

import tensmith
from tensmith.backends.cuda.fake.install import FakeDriver, install
from tensmith.compiler.errors import ModelWarning, RunError
from tensmith.driver.preflight import preflight
from tensmith.driver.request import CompileRequest
from tensmith.runtime.loader import ModuleError

pytestmark = needs_triton
CALLS = (
    "cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2", "cuStreamCreate", "cuModuleLoadData", "cuModuleGetFunction",
    "cuMemAlloc_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize",
    "cuLaunchKernelEx", "cuDriverGetVersion", "cuEventCreate",
)  # fmt: skip
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719
INVALID_IMAGE, UNSUPPORTED_PTX = 200, 222
MEMORY = ("cuModuleLoadData", "cuMemAlloc_v2", "cuLaunchKernelEx")  # calls that take some
FAILURES = [
    *((call, LAUNCH_FAILED) for call in CALLS),
    *(
        pytest.param(call, OUT_OF_MEMORY, marks=() if call in MEMORY else pytest.mark.slow)
        for call in CALLS
    ),
]


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    found = install()
    found.be(80, SM_80)
    yield found
    found.be(80, SM_80)
    found.fail("", 0, 0)
    gc.collect()
    assert found.live == (0, 0), "memory or objects of the driver were not given back"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuda")


@pytest.fixture(scope="module")
def library(folder: Path) -> Path:
    return library_of(folder, "cuda:sm_80")


def test_a_library_needs_the_c_library_alone(library: Path) -> None:
    told = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    needed = {line.split("[")[1][:-1] for line in told.stdout.splitlines() if "NEEDED" in line}
    assert needed <= {"libc.so.6", "libdl.so.2"}


def test_outputs_of_any_batch(library: Path, driver: FakeDriver) -> None:
    weights = perceptron()[1]
    module = tensmith.load(library)
    rng = np.random.default_rng(1)
    for batch in (1, 5, 70, 3):
        x = rng.standard_normal((batch, 12)).astype("f4")
        np.testing.assert_allclose(module(x)["y"], expected(x, weights), rtol=2e-5, atol=1e-6)
    assert module(np.zeros((0, 12), "f4"))["y"].shape == (0, 9)


def test_sizes_beyond_what_offsets_reach_are_refused(tmp_path: Path, driver: FakeDriver) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    wide = onnx_model(nodes, {"w": np.ones((12, 4096), "f4")})
    path = tmp_path / "wide.so"
    tensmith.compile(wide, target="cuda:sm_80").save(path)
    module = tensmith.load(path)
    np.testing.assert_array_equal(module(np.ones((1, 12), "f4"))["y"], np.full((1, 4096), 12.0))
    with pytest.raises(ModuleError, match="larger than kernels of symbolic sizes address"):
        module(np.ones((1 << 18, 12), "f4"))


def test_the_manifest_tells_what_runs_where(library: Path, driver: FakeDriver) -> None:
    manifest = tensmith.load(library).manifest
    assert manifest["target"]["architectures"] == "sm_80"
    functions = [f for kernel in manifest["kernels"] for f in kernel["functions"]]
    assert functions
    for function in functions:
        assert 0 < function["resources"]["sm_80"]["registers"] <= 255
        assert f"def {function['symbol']}(" in function["source"]


def test_the_same_model_gives_the_same_bytes(library: Path, folder: Path) -> None:
    again = folder / "again" / library.name
    again.parent.mkdir()
    tensmith.compile(perceptron()[0], target="cuda:sm_80", name="perceptron").save(again)
    assert again.read_bytes() == library.read_bytes()


def test_one_file_for_several_gpus(folder: Path, driver: FakeDriver) -> None:
    """Code of 8.0 runs on its generation, PTX where there is no code."""
    path = library_of(folder, "cuda")
    x = np.random.default_rng(2).standard_normal((4, 12)).astype("f4")
    want = expected(x, perceptron()[1])
    for capability in (80, 86, 89, 90, 100, 103, 120, 121):
        driver.be(capability, 99 << 10)
        got = tensmith.load(path)(x)["y"]
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    driver.be(75, 64 << 10)
    with pytest.raises(RunError, match=r"compute capability 7\.5.*sm_80, sm_90, sm_100, sm_120"):
        tensmith.load(path)


def test_gpus_that_the_file_is_not_for(library: Path, driver: FakeDriver) -> None:
    """What is advised is possible: a target that there is, and whose code the GPU runs."""
    for capability in (90, 103, 121):
        driver.be(capability, SM_80)
        with pytest.raises(RunError, match=r"compile it for --target cuda$"):
            tensmith.load(library)
    driver.be(75, SM_80)
    with pytest.raises(RunError, match=r"capability 7\.5, .* use a GPU of 8\.0 or newer"):
        tensmith.load(library)
    driver.be(80, 1)
    with pytest.raises(RunError, match=r"bytes of shared memory, .*: compile .* --target cuda$"):
        tensmith.load(library)
    driver.be(80, SM_80, count=0)
    with pytest.raises(RunError, match="no NVIDIA GPU"):
        tensmith.load(library)


def test_drivers_that_are_too_old(library: Path, driver: FakeDriver) -> None:
    driver.version((11, 8))
    try:
        with pytest.raises(RunError, match=r"knows CUDA 11\.8: .* needs driver 525 \(CUDA 12\.0\)"):
            tensmith.load(library)
        driver.version((12, 0))
        assert tensmith.load(library)(np.zeros((1, 12), "f4"))["y"].shape == (1, 9)
    finally:
        driver.version((12, 4))
    for error in (INVALID_IMAGE, UNSUPPORTED_PTX):
        driver.fail("cuModuleLoadData", 1, error)
        with pytest.raises(RunError, match="a newer NVIDIA driver knows such code"):
            tensmith.load(library)


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        ("cuInit", 802, "start the services of the driver"),
        ("cuInit", 803, "of the version of the driver in the kernel"),
        ("cuInit", 804, "of the version of the driver in the kernel"),
        ("cuInit", 999, "nvidia-smi tells whether the driver and the GPU work"),
        ("cuDevicePrimaryCtxRetain", 46, "let it be shared"),
        ("cuModuleLoadData", 209, "compile the model for --target cuda"),
        ("cuModuleLoadData", 221, "install the driver's libnvidia-ptxjitcompiler"),
        *(("cuStreamSynchronize", e, "start it anew") for e in (214, 700, 702, 715, 716, 719)),
    ],
)
def test_an_error_has_a_remedy(
    call: str, error: int, remedy: str, library: Path, driver: FakeDriver
) -> None:
    driver.fail(call, 1, error)
    with pytest.raises(RunError, match=rf"\({error}\), .*; .*{remedy}"):
        tensmith.load(library)


@pytest.mark.parametrize(("call", "error"), FAILURES)
def test_a_driver_that_fails(call: str, error: int, library: Path, driver: FakeDriver) -> None:
    """Whichever call fails, in loading or in a run, is told; the next run is right again."""
    x = np.ones((2, 12), "f4")
    want = expected(x, perceptron()[1])
    for after in range(1, 40):
        driver.fail(call, after, error)
        module = None
        try:
            module = tensmith.load(library)
            got = module(x)["y"]
        except (RunError, ModuleError) as failure:
            told = str(failure)
            assert ("OUT_OF_MEMORY" if error == OUT_OF_MEMORY else "LAUNCH_FAILED") in told
            if error == OUT_OF_MEMORY:
                assert "end other programs" in told
            if module is not None:
                np.testing.assert_allclose(module(x)["y"], want, rtol=2e-5, atol=1e-6)
        else:
            driver.fail("", 0, 0)
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
            assert after > 1
            break
        finally:
            del module
            gc.collect()
            driver.fail("", 0, 0)
            assert driver.live == (0, 0)
    else:
        pytest.fail(f"{call} is called without end")


def test_instances_at_once(library: Path, driver: FakeDriver) -> None:
    weights, wrong = perceptron()[1], []

    def work(seed: int) -> None:
        module = tensmith.load(library)
        for batch in (3, 17):
            x = np.random.default_rng(seed).standard_normal((batch, 12)).astype("f4")
            if not np.allclose(module(x)["y"], expected(x, weights), rtol=2e-5, atol=1e-6):
                wrong.append((seed, batch))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_runs_on_the_host_finds_its_tensors(tmp_path: Path, driver: FakeDriver) -> None:
    """A scatter and a sort between kernels of the device."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ScatterElements", ["e", "i", "u"], ["s"], axis=1),
        helper.make_node("Mul", ["s", "two"], ["m"]),
        helper.make_node("TopK", ["m", "k"], ["t", "p"], axis=1),
        helper.make_node("Neg", ["t"], ["y"]),
    ]
    constants = {
        "i": np.array([[1, 3]], "i8"), "u": np.array([[9.0, -1.0]], "f4"),
        "two": np.array(2, "f4"), "k": np.array([4], "i8"),
    }  # fmt: skip
    artifact = tensmith.compile(onnx_model(nodes, constants, 1), target="cuda:sm_80")
    assert any(kernel.schedule.startswith("on the host: ") for kernel in artifact.kernels)
    assert any(kernel.functions for kernel in artifact.kernels)
    with pytest.warns(ModelWarning, match="in an interpreter"):
        module = artifact.load()
    x = np.random.default_rng(3).standard_normal((1, 12)).astype("f4")
    want = np.exp(x)
    want[0, [1, 3]] = [9.0, -1.0]
    np.testing.assert_allclose(module(x)["y"], -np.sort(2 * want)[:, ::-1][:, :4], rtol=1e-5)


def test_a_check_names_what_runs_on_the_host(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], name="exp"),
        helper.make_node("ScatterElements", ["e", "i", "u"], ["s"], name="scatter", axis=1),
        helper.make_node("NonZero", ["s"], ["p"], name="found"),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {"i": np.array([[1, 3]], "i8"), "u": np.array([[9.0, 2.0]], "f4")}
    path = tmp_path / "scatter.onnx"
    onnx.save(onnx_model(nodes, constants, 1), path)
    found = preflight(path, CompileRequest(target="cuda"))
    assert found.on_host is not None
    scatter, selection = found.on_host
    assert "in order" in scatter.reason
    assert selection.name == "ts_op_nonzero"
    assert preflight(path, CompileRequest(target="x86-64-v3")).on_host is None


def test_verification_runs_in_the_interpreter(library: Path) -> None:
    artifact = tensmith.compile(perceptron()[0], target="cuda:sm_80")
    with pytest.warns(ModelWarning, match="in an interpreter"):
        report = artifact.verify()
    assert report.status == "passed", report.summary()


def test_without_a_driver_the_user_is_told(library: Path) -> None:
    code = "import sys, tensmith; tensmith.load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, library], capture_output=True, text=True, check=False
    )
    if not done.returncode:
        pytest.skip("there is an NVIDIA driver here")
    assert "the NVIDIA driver cannot be loaded" in done.stderr
    assert "driver 525 (CUDA 12.0) or newer" in done.stderr


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_lower_precision_is_verified(precision: str) -> None:
    artifact = tensmith.compile(perceptron(64)[0], target="cuda:sm_80", precision=precision)
    told = [row["precision"] for row in artifact.manifest["contractions"]]
    assert told == [precision] * 2
    with pytest.warns(ModelWarning, match="in an interpreter"):
        report = artifact.verify()
    assert report.status == "passed", report.summary()
    assert report.precision_error is not None
    assert 1e-6 < report.precision_error.max_abs < 1e-2
