"""Linking: files, formats, reproducible bytes, several models in one program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cplans import OF_HOST, make_model, needs_x86

from tensmith.backends.common import toolchain
from tensmith.backends.common.elf import write_data_object
from tensmith.backends.common.link import EMITS, link
from tensmith.compiler.errors import InternalError, UsageError

pytestmark = needs_x86
EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "classify.c"
LIBC_FAMILY = {"libc.so.6", "libm.so.6", "libdl.so.2"}
THREADS = "libpthread.so.0"  # of programs, which measure with several
needs_readelf = pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")


def _zig(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", *arguments], check=True, capture_output=True)


def _readelf(*arguments: str | Path) -> str:
    return subprocess.run(
        ["readelf", "-W", *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("emit", EMITS)
def test_same_model_same_bytes(tmp_path, emit) -> None:
    names = {"so": "m.so", "exe": "m", "lib": "libm.a", "obj": "m.o"}
    made = []
    for place in ("one", "another/place"):
        (tmp_path / place).mkdir(parents=True)
        model = make_model("affine", tmp_path / place)
        files = link(model, emit, tmp_path / place / names[emit])
        assert sorted(os.listdir(tmp_path / place)) == sorted(
            ["affine.bin", *(f.name for f in files)]
        )
        made.append([f.read_bytes() for f in files])
    assert made[0] == made[1]
    assert all(str(tmp_path).encode() not in data for data in made[0])


@needs_readelf
@pytest.mark.parametrize(  # programs for AArch64 are static
    ("emit", "arch"), [("so", "x86_64"), ("exe", "x86_64"), ("so", "aarch64")]
)
def test_only_libc_and_no_text_relocations(tmp_path, emit, arch) -> None:
    path = link(make_model("affine", tmp_path, arch=arch), emit, tmp_path / "m.so")[0]
    dynamic = _readelf("-d", path)
    allowed = LIBC_FAMILY | ({THREADS} if emit == "exe" else set())
    assert set(re.findall(r"NEEDED.*\[(.*)\]", dynamic)) <= allowed
    assert "TEXTREL" not in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", dynamic)}
    versions |= {
        tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", _readelf("-V", path))
    }
    assert max(versions) <= (2, 17)


@needs_readelf
def test_shared_library_exports_only_the_interface(tmp_path) -> None:
    path = link(make_model("affine", tmp_path), "so", tmp_path / "m.so")[0]
    rows = [line.split() for line in _readelf("--dyn-syms", path).splitlines()]
    exported = {row[7] for row in rows if len(row) == 8 and row[6] not in ("UND", "Ndx")}
    assert {"ts_run", "ts_model_get", "ts_model_affine", "__tvm_ffi_run"} <= exported
    assert all(re.match(r"ts_(?!rt_)|__tvm_ffi_", name) for name in exported), exported


@needs_readelf
def test_weights_are_page_aligned_read_only_data(tmp_path) -> None:
    weights = np.random.default_rng(0).bytes(3 << 20)
    path = link(make_model("affine", tmp_path, weights=weights), "so", tmp_path / "m.so")[0]
    data = path.read_bytes()
    assert len(data) < len(weights) + (1 << 20)
    at = data.index(weights)
    assert at % 4096 == 0
    for line in _readelf("-l", path).splitlines():
        fields = line.split()
        if fields[:1] != ["LOAD"]:
            continue
        offset, size = int(fields[1], 16), int(fields[4], 16)
        if offset <= at < offset + size:
            assert fields[6] == "R"
            assert (int(fields[2], 16) - offset) % 4096 == 0


def test_model_without_weights(tmp_path) -> None:
    files = link(make_model("types", tmp_path, weights=b""), "so", tmp_path / "m.so")
    assert [f.name for f in files] == ["m.so"]


def _build_example(tmp_path: Path, compiler: list[str], artifact: Path) -> Path:
    program = tmp_path / "classify"
    subprocess.run(
        [
            *(*compiler, "-Wall", "-Wextra", "-Werror", "-O2", f"-I{tmp_path}", str(EXAMPLE)),
            *(str(artifact), "-lm", "-ldl", "-o", str(program)),
        ],
        check=True,
    )
    return program


@pytest.mark.parametrize("emit", ["lib", "obj"])
@pytest.mark.parametrize("compiler", ["zig", "cc"])
def test_c_program_with_a_linked_model(tmp_path, emit, compiler) -> None:
    if compiler == "cc" and not shutil.which("cc"):
        pytest.skip("no C compiler besides zig")
    zig = [sys.executable, "-m", "ziglang", "cc", *OF_HOST]
    command = ["cc"] if compiler == "cc" else zig
    output = tmp_path / {"lib": "libdigits.a", "obj": "digits.o"}[emit]
    files = link(make_model("affine", tmp_path, name="digits"), emit, output)
    assert [f.name for f in files] == [output.name, "digits.h", "tensmith.h"]
    images = np.array([[0, 1, 2, 9, 4, 5], [8, 1, 2, 3, 4, 5]], np.float32)
    result = subprocess.run(
        [_build_example(tmp_path, command, output)],
        input=images.tobytes(),
        capture_output=True,
        check=True,
    )
    assert result.stdout.decode().split() == ["3", "19.0000", "0", "17.0000"]


TWO_MODELS = """
#include <stdio.h>
#include "first.h"
#include "second.h"
static float run(const ts_model *model) {
  float x[6] = {1, 1, 1, 1, 1, 1};
  int64_t shape[2] = {2, 3};
  DLTensor in = {x, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, shape, NULL, 0}, out = {0};
  ts_instance *instance;
  ts_options options = TS_OPTIONS_DEFAULT;
  options.threads = 2;
  float y = -1;
  if (!ts_create(model, &options, &instance) && !ts_run(instance, &in, 1, &out, 1))
    y = ((float *)out.data)[0];
  ts_destroy(instance);
  return y;
}
int main(void) {
  printf("%g %g\\n", run(ts_model_first()), run(ts_model_second()));
  return 0;
}
"""


@pytest.mark.parametrize("emits", [("lib", "lib"), ("obj", "obj"), ("lib", "obj")])
def test_two_models_in_one_program(tmp_path, emits) -> None:
    artifacts = []
    for name, scale, emit in zip(("first", "second"), (3, 5), emits, strict=True):
        weights = np.float32([scale, 0.5]).tobytes()
        model = make_model("affine", tmp_path, name=name, weights=weights)
        suffix = {"lib": ".a", "obj": ".o"}[emit]
        artifacts.append(link(model, emit, tmp_path / f"{name}{suffix}")[0])
    (tmp_path / "main.c").write_text(TWO_MODELS)
    _zig(
        *("cc", *OF_HOST, "-O1", "-fno-sanitize=all", f"-I{tmp_path}", tmp_path / "main.c"),
        *(*artifacts, "-lm", "-ldl", "-o", tmp_path / "main"),
    )
    result = subprocess.run([tmp_path / "main"], capture_output=True, check=True, text=True)
    assert result.stdout == "3.5 5.5\n"


@pytest.mark.parametrize("standard", ["-std=c99", "-std=c17", "-xc++"])
@pytest.mark.parametrize("dlpack", ["", "before", "after"])
def test_header_compiles_alone_and_with_dlpack(tmp_path, standard, dlpack) -> None:
    tvm_ffi = pytest.importorskip("tvm_ffi", reason="apache-tvm-ffi brings dlpack.h")
    includes = ["tensmith.h"]
    if dlpack:
        includes.insert(0 if dlpack == "before" else 1, "dlpack/dlpack.h")
    source = tmp_path / "header.c"
    source.write_text("".join(f'#include "{name}"\n' for name in includes))
    folder = tvm_ffi.libinfo.find_dlpack_include_path()
    command = "c++" if standard == "-xc++" else "cc"
    pedantic = [] if dlpack else ["-pedantic-errors"]
    _zig(
        *(command, standard, *pedantic, "-Wall", "-Werror", f"-I{toolchain.RUNTIME}"),
        *(f"-I{folder}", "-c", source, "-o", tmp_path / "header.o"),
    )


def test_wrong_requests(tmp_path) -> None:
    model = make_model("affine", tmp_path)
    with pytest.raises(UsageError, match="cannot link 'dll'"):
        link(model, "dll", tmp_path / "m")
    with pytest.raises(UsageError, match="cannot become the C function"):
        link(make_model("affine", tmp_path, name="get"), "so", tmp_path / "m.so")
    with pytest.raises(UsageError, match="is a directory"):
        link(model, "so", tmp_path)
    with pytest.raises(UsageError, match="cannot link for 'riscv64-unknown-linux-gnu'"):
        toolchain.arch_of("riscv64-unknown-linux-gnu")


def test_failed_link_leaves_nothing(tmp_path) -> None:
    model = make_model("affine", tmp_path)
    object.__setattr__(model.code, "plan_symbol", "plan_missing")
    with pytest.raises(InternalError, match="plan_missing"):
        link(model, "exe", tmp_path / "m")
    assert os.listdir(tmp_path) == ["affine.bin"]


def test_data_object_alignment(tmp_path) -> None:
    (tmp_path / "data").write_bytes(b"abc")
    write_data_object(tmp_path / "d.o", "x86_64", "blob", tmp_path / "data", 4096)
    assert (tmp_path / "d.o").read_bytes()[4096:4099] == b"abc"
