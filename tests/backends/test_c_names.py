"""Headers of models, whatever models and their tensors are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cplans import OF_HOST, make_model, needs_x86

from tensmith.backends.arm.bare_c import Interface, header_of
from tensmith.backends.common.c_names import header_name, identifier
from tensmith.backends.common.link import link
from tensmith.backends.common.zig import run_zig
from tensmith.compiler.artifact import CompiledModel, TensorSpec
from tensmith.compiler.errors import InternalError

pytestmark = needs_x86
KNOWN, OPEN = (2, 3), ("n", 3)
USED = """{headers}
int main(void) {{ return {use}; }}
"""


def _compiles(folder: Path, text: str, language: str) -> None:
    """Assert that C or C++ is accepted, warnings being errors."""
    source = folder / f"use.{language}"
    source.write_text(text)
    kind = {"c": ("cc", "-std=c11"), "cpp": ("c++", "-std=c++17")}[language]
    words = [*kind, *OF_HOST, "-Wall", "-Wextra", "-Werror", f"-I{folder}", "-c", source.name]
    run_zig([*words, "-o", "use.o"], folder)


def _bare(folder: Path, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> CompiledModel:
    model = make_model("affine", folder)
    return replace(model, name="net", inputs=tuple(inputs), outputs=tuple(outputs), symbols=("n",))


@pytest.mark.parametrize("language", ["c", "cpp"])
@pytest.mark.parametrize(
    ("names", "dims"),
    [
        (["int", "default", "class", "bool", "return", "8bit", "a.b", "a_b", "A.B"], KNOWN),
        (["arena", "weights", "message", "x", "X", "NULL", "INT8_MAX", "size_t"], KNOWN),
        (["y", "y_bytes", "y_shape", "n", "y_bytes_bytes", "Y", "*/"], OPEN),
        (["y_shape", "y_bytes", "y", "errno", "stdin", "uint8_t"], OPEN),
        (["_Bool", "_Generic", "_Static_assert", "__FILE__", "NAN", "INFINITY", "I"], KNOWN),
        (["_Complex", "complex", "HUGE_VAL", "M_PI", "FLT_MAX", "CHAR_BIT", "LONG_MAX"], KNOWN),
    ],
)
def test_tensors_have_members_of_any_name(
    tmp_path: Path, names: list[str], dims: tuple[int | str, ...], language: str
) -> None:
    half = len(names) // 2
    specs = [TensorSpec(name, "f32", dims) for name in names]
    interface = Interface(_bare(tmp_path, specs[:half], specs[half:]))
    (tmp_path / "net.h").write_text(interface.header("cortex-m4"))
    first = ("complex", "errno", "float", "limits", "math", "stdio", "stdbool", "net")
    text = "".join(f"#include <{header}.h>\n" for header in first)
    _compiles(tmp_path, USED.format(headers=text, use="sizeof(net_io) == 0"), language)


def test_usual_names_stay_as_they_are(tmp_path: Path) -> None:
    specs = [TensorSpec(name, "f32", KNOWN) for name in ("image", "scores", "mask_2")]
    interface = Interface(_bare(tmp_path, specs[:1], specs[1:]))
    assert [*interface.inputs, *interface.outputs] == ["image", "scores", "mask_2"]
    assert "#define NET_IMAGE_BYTES 24u" in interface.header("cortex-m4")
    assert identifier("input.1") == "input_1"


@pytest.mark.parametrize("emit", ["lib", "obj"])
@pytest.mark.parametrize(
    ("file", "header"),
    [
        ("libtensmith", "tensmith_model.h"),
        ("float", "float_model.h"),
        ("features", "features_model.h"),
        ("net.v1", "net.v1.h"),
        ("lib", "affine.h"),
    ],
)
def test_no_header_takes_the_place_of_another(
    tmp_path: Path, emit: str, file: str, header: str
) -> None:
    suffix = {"lib": ".a", "obj": ".o"}[emit]
    files = link(make_model("affine", tmp_path), emit, tmp_path / f"{file}{suffix}")
    assert [path.name for path in files] == [f"{file}{suffix}", header, "tensmith.h"]
    text = f'#include "{header}"\n#include <float.h>\n'
    _compiles(tmp_path, USED.format(headers=text, use="!ts_model_affine() + FLT_DIG"), "c")


def test_headers_of_names_that_differ_in_case(tmp_path: Path) -> None:
    for name in ("net", "Net"):
        model = replace(make_model("affine", tmp_path), name=name)
        link(model, "lib", tmp_path / name / f"{name}.a")
    text = "".join(f'#include "{name}/{name}.h"\n' for name in ("net", "Net"))
    _compiles(tmp_path, USED.format(headers=text, use="ts_model_net() == ts_model_Net()"), "c")


@pytest.mark.parametrize(
    ("one", "other", "tensors"),
    [("net", "Net", ("x", "x")), ("net", "net_x", ("x_y", "y")), ("net", "other", ("x", "x"))],
)
def test_macros_of_two_models_are_not_mixed_up(
    tmp_path: Path, one: str, other: str, tensors: tuple[str, str]
) -> None:
    for name, tensor in zip((one, other), tensors, strict=True):
        model = replace(_bare(tmp_path, [TensorSpec(tensor, "f32", KNOWN)], []), name=name)
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.h").write_text(Interface(model).header("cortex-m4"))
    text = "".join(f'#include "{name}/{name}.h"\n' * 2 for name in (one, other))
    use = USED.format(headers=text, use="0")
    if other == "other":
        _compiles(tmp_path, use, "c")
        return
    with pytest.raises(InternalError, match="compile one of them with another --name"):
        _compiles(tmp_path, use, "c")


def test_headers_beside_the_sources_of_the_runtime(tmp_path: Path) -> None:
    model = make_model("affine", tmp_path)
    wanted = {
        "bare": "bare_model.h",
        "Bare": "Bare_model.h",
        "plan_abi": "plan_abi_model.h",
        "kws": "kws.h",
    }
    assert {name: header_of(replace(model, name=name)) for name in wanted} == wanted
    assert header_name("String", []) == "String_model.h"


def _top_level(text: str) -> set[str]:
    """The headers that a list of dependencies names, but for those in folders of a root."""
    paths = [Path(word) for word in text.replace("\\\n", " ").split()[1:] if word.endswith(".h")]
    own = [path for path in paths if path.name == "search.h" or path.match("include/stddef.h")]
    roots = {path.parent for path in own}
    return {path.stem for path in paths if path.parent in roots}


@pytest.mark.parametrize("target", ["x86_64-linux-gnu", "aarch64-linux-musl"])
def test_no_model_takes_a_header_that_others_include(tmp_path: Path, target: str) -> None:
    """Those that the headers of C and POSIX include by the way, in whatever library."""
    usual = "stdint stdlib string stdio math pthread unistd signal semaphore dlfcn search netdb"
    text = "".join(f"#include <{name}.h>\n" for name in usual.split())
    (tmp_path / "use.c").write_text(text)
    run_zig(["cc", "-target", target, "-M", "-MF", "use.d", "-E", "-o", "use.i", "use.c"], tmp_path)
    found = _top_level((tmp_path / "use.d").read_text())
    assert {*usual.split(), "features", "alloca"} <= found
    assert not [stem for stem in found if header_name(stem, []) != f"{stem}_model.h"]
    names = ("xmmintrin", "arm_neon", "_ansi", "Endian", "newlib")
    assert all(header_name(stem, []) == f"{stem}_model.h" for stem in names)
    assert header_name("mobilenet_v2", []) == "mobilenet_v2.h"
