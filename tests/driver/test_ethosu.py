"""Models compiled for an Ethos-U by the driver, run in the simulator."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from bare_models import GCC, needs_gcc, needs_qemu
from onnx import TensorProto, helper, numpy_helper
from tosa_runs import needs_vela

from tensmith.backends.arm.bare import linker_script
from tensmith.backends.arm.cortex_m import BOARDS
from tensmith.backends.common.toolchain import RUNTIME
from tensmith.backends.common.zig import run_zig
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import UsageError
from tensmith.driver import api
from tensmith.driver.preflight import preflight
from tensmith.driver.request import CompileRequest
from tensmith.runtime.device_pipes import run_beside
from tensmith.runtime.firmware import FirmwareError, run_firmware

TARGET = "ethos-u55-128"
EDGES = {"quantize", "transpose", "reshape", "dequantize"}
pytestmark = [needs_vela, pytest.mark.filterwarnings("ignore:kernels run in an interpreter")]


@pytest.fixture
def net(tmp_path):
    """A small classifier of images, in floats, with an operator in front that is not for it."""
    rng = np.random.default_rng(0)

    def constant(name, *shape):
        data = (0.4 * rng.normal(size=shape)).astype(np.float32)
        return numpy_helper.from_array(data, name)

    weights = [constant("w0", 8, 3, 3, 3), constant("b0", 8), constant("w1", 8, 4),
               constant("b1", 4)]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["g"], name="scores"),
        helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])], weights,
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _samples(count: int = 8) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 1, 3, 8, 8)).astype(np.float32)


def _compiled(net, **more):
    return api.compile(net, target=TARGET, calibration={"x": _samples()}, **more)


def test_a_model_of_floats_is_quantised_and_runs_in_the_simulator(net):
    artifact = _compiled(net)
    module = artifact.load()
    for sample in _samples(3):
        (y,) = module({"x": sample}).values()
        assert y.shape == (1, 4)
        assert abs(float(y.sum()) - 1) <= 4 / 256
        np.testing.assert_array_equal(y * 256, np.rint(y * 256))
    assert artifact.verify().status == "passed"
    assert max(d.max_abs for trial in artifact.report.trials for d in trial) == 0


def test_the_manifest_says_what_runs_where(net):
    manifest = _compiled(net).manifest
    npu, cpu = manifest["npu"], manifest["cpu"]
    assert npu["estimated_cycles"] == sum(part["cycles"] for part in npu["segments"])
    assert npu["origin"] == "estimated by Vela"
    assert len(npu["segments"]) == 1
    assert npu["share"] == 1
    assert {row["op"] for row in cpu["operators"]} <= EDGES
    assert all(row["reason"] for row in cpu["operators"])
    assert npu["memories"]["Sram"]["peak"] == npu["arena_bytes"]
    assert npu["memories"]["OffChipFlash"]["peak"] >= npu["weight_bytes"]
    assert manifest["target"]["memory_mode"] == "Shared_Sram"
    nodes = {row["name"]: row for row in npu["segments"][0]["nodes"]}
    assert nodes["scores"]["macs"] == 32
    assert sum(row["cycles"] for row in nodes.values()) == npu["estimated_cycles"]


def test_floats_without_calibration_data_are_refused(net):
    with pytest.raises(UsageError, match="the model is of floats") as caught:
        api.compile(net, target=TARGET)
    assert "--calibration" in caught.value.remedy
    with pytest.raises(UsageError, match="computes in integers, not in bf16"):
        api.compile(net, target=TARGET, precision="bf16")


def test_check_says_what_runs_where_without_calibration_data(net):
    found = preflight(net, CompileRequest(target=TARGET))
    assert not found.unsupported
    assert found.npu
    assert found.cpu
    assert {row["op"] for row in found.cpu["operators"]} <= EDGES
    compiled = _compiled(net).manifest["npu"]
    assert found.npu["operators"] == compiled["operators"]
    assert found.npu["estimated_cycles"] == pytest.approx(compiled["estimated_cycles"], rel=0.02)


def test_memory_that_does_not_suffice_is_told(net):
    """By the compiler, and before; memory of the processor's own may be as small."""
    small = f"{TARGET}+arena-cache-size=128"
    with pytest.raises(UsageError, match="does not fit the memory") as caught:
        api.compile(net, target=small, calibration={"x": _samples()})
    assert re.search(r"takes \d+ bytes; arena-cache-size allows 128", caught.value.why)
    assert "optimise=Size" in caught.value.remedy
    with pytest.raises(UsageError, match="does not fit the memory"):
        preflight(net, CompileRequest(target=small))
    apart = api.compile(
        net, target=f"{small}+memory-mode=Dedicated_Sram", calibration={"x": _samples()}
    )
    assert max(part["fast_bytes"] for part in apart.manifest["npu"]["segments"]) <= 128


@pytest.fixture
def divided(net, tmp_path):
    """The classifier with an operator in the middle that the processor has not: a sum along
    columns."""
    model = onnx.load(net)
    model.graph.node[2].input[0] = "s"
    axis = numpy_helper.from_array(np.array(2, np.int64), "axis")
    model.graph.initializer.append(axis)
    model.graph.node.insert(2, helper.make_node("CumSum", ["r", "axis"], ["s"], name="running"))
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    return path


def test_several_segments_share_a_run(divided):
    artifact = _compiled(divided)
    assert len(artifact.manifest["npu"]["segments"]) == 2
    reasons = {row["op"]: row["reason"] for row in artifact.manifest["cpu"]["operators"]}
    assert reasons["cumsum"] == "the processor has no operator 'cumsum'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert artifact.verify().status == "passed"


def _bare(net, target=TARGET):
    return api.compile(
        net, target=f"{target}+host=cortex-m55", calibration={"x": _samples()}, name="net"
    )


@needs_qemu
@pytest.mark.parametrize("target", [TARGET, "ethos-u65-256"])
def test_a_program_for_a_microcontroller(divided, target):
    """Both kinds of segments, the NPU's in memory of its own on the U65."""
    artifact = _bare(divided, target)
    assert len(artifact.manifest["npu"]["segments"]) == 2
    assert artifact.subject().kind == "firmware"
    assert artifact.verify().status == "passed"
    assert max(d.max_abs for trial in artifact.report.trials for d in trial) == 0
    with pytest.raises(UsageError, match="another machine"):
        artifact.load()


@needs_qemu
def test_what_stands_in_for_the_npu_refuses(net, tmp_path):
    artifact = _bare(net)
    spec = artifact.subject()
    dtypes = {"f32": np.dtype(np.float32)}
    calls = [(0, {"x": _samples(1)[0]})]

    def refuse(commands, memory):
        assert commands[:4] == b"COP1"
        raise ValueError("not today")

    with pytest.raises(FirmwareError, match="not today"):
        run_firmware(spec.emulator, spec.path, calls, dtypes, tmp_path, refuse)
    with pytest.raises(FirmwareError, match="1 is no"):
        run_firmware(("sh", "-c", "echo 1 is no; exit 3"), spec.path, calls, dtypes, tmp_path,
                     refuse)  # fmt: skip
    (run,) = run_firmware(spec.emulator, spec.path, calls, dtypes, tmp_path)
    assert run.status == 13
    assert "ended the run with an error" in run.message


MAIN = """
#include "net.h"
#include "semihosting.h"
static uint8_t arena[NET_ARENA_BYTES] __attribute__((aligned(NET_ARENA_ALIGNMENT)));
int main(void) {
  static float x[NET_X_BYTES / sizeof(float)], y[NET_Y_BYTES / sizeof(float)];
  const int32_t from = sh_open("x.bin", 5, SH_MODE_READ), to = sh_open("y.bin", 5, SH_MODE_WRITE);
  if (sh_read(from, x, sizeof x) != sizeof x) return 2;
  net_io io = {.x = x, .y = y};
  return net_run(&io, arena, sizeof arena) || !sh_write(to, y, sizeof y);
}
"""


@needs_qemu
@needs_gcc
@pytest.mark.parametrize("form", ["lib", "c"])
def test_in_a_project_of_the_gnu_toolchain(divided, tmp_path, form):
    """Linked with a driver, here the stand-in for programs in an emulator."""
    artifact = _bare(divided)
    files = artifact.save(tmp_path / {"lib": "net.a", "c": "net.c"}[form], form)
    code = [path for path in files if path.suffix in (".c", ".s", ".a")]
    (tmp_path / "main.c").write_text(MAIN)
    (tmp_path / "board.ld").write_text(linker_script(BOARDS["cortex-m55"]))
    bare = RUNTIME / "bare"
    subprocess.run(
        [GCC, "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "-Os", "-nostartfiles",
         "-T", "board.ld", f"-I{bare}", f"-I{RUNTIME}", "main.c", bare / "startup.c",
         bare / "npu_driver.c", *code, "-o", "program.elf"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    backend, target = resolve_target(artifact.target.name)
    emulator = backend.emulator(target)
    x = _samples(1)[0]
    (tmp_path / "x.bin").write_bytes(x.tobytes())
    command = [*emulator.command, str(tmp_path / "program.elf")]
    assert run_beside(command, tmp_path, emulator.device) == (0, "")
    found = np.frombuffer((tmp_path / "y.bin").read_bytes(), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (wanted,) = _compiled(divided).load()({"x": x}).values()
    np.testing.assert_array_equal(found, wanted.ravel())


def test_a_quantised_model_is_held_against_its_integers():
    path = Path(__file__).parents[3] / "shared" / "models" / "dev" / "kws_qdq" / "model.onnx"
    if not path.is_file():
        pytest.skip("the model is not here: ../shared/models/dev/kws_qdq")
    artifact = api.compile(path, target=TARGET)
    assert artifact.verify().status == "passed"
    assert max(d.max_abs for trial in artifact.report.trials for d in trial) == 0


def test_a_library_for_a_microcontroller(net, tmp_path):
    artifact = _bare(net)
    library, header = artifact.save(tmp_path / "net.a", "lib")
    assert b"!<arch>" in library.read_bytes()[:8]
    text = header.read_text()
    assert "int32_t net_run(net_io *io, void *arena, size_t arena_bytes);" in text
    (arena,) = (int(n) for n in re.findall(r"NET_ARENA_BYTES (\d+)u", text))
    assert arena >= artifact.manifest["npu"]["arena_bytes"]
    with pytest.raises(UsageError, match="so"):
        artifact.save(tmp_path / "net.so", "so")


def test_c_for_another_toolchain_compiles(net, tmp_path):
    """As does the driver's interface that it declares."""
    artifact = _bare(net)
    names = {path.name for path in artifact.save(tmp_path / "net.c", "c")}
    assert {"net.c", "net.h", "net_code.s", "npu.c", "npu.h", "plan_abi.h"} <= names
    assert artifact.code.device.images[:4] == b"COP1"
    (tmp_path / "driver.c").write_text(
        "#include <stddef.h>\n#include <stdint.h>\nstruct ethosu_driver;\n"
        "int ethosu_invoke_v3(struct ethosu_driver *d, const void *c, const int n,\n"
        "  uint64_t *const b, const size_t *s, const int k, void *u);\n"
        "int ethosu_invoke_v3(struct ethosu_driver *d, const void *c, const int n,\n"
        "  uint64_t *const b, const size_t *s, const int k, void *u) {\n"
        "  return !(d || c || n || b || s || k || u);\n}\n"
    )
    target = ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+fp_armv8d16+mve_fp")
    sources = ("net.c", "npu.c", "bare.c", "driver.c")
    for source in sources:
        run_zig(["cc", *target, "-O1", "-c", source, "-o", f"{source}.o"], tmp_path)
    assert all((tmp_path / f"{source}.o").stat().st_size for source in sources)


@pytest.mark.parametrize(
    ("host", "said"), [("ethos-u55-128", "no processor"), ("cuda:sm_90", "no processor"),
                       ("z80", "unknown target")]
)  # fmt: skip
def test_hosts_that_are_none(host, said):
    with pytest.raises(UsageError, match=said):
        resolve_target(f"{TARGET}+host={host}")
