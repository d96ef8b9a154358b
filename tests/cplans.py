"""Compiled models whose code is C (tests/runtime/plans.c): no code generator is needed."""

from __future__ import annotations

import functools
import platform
import struct
import tempfile
from pathlib import Path

import pytest

from tensmith.backends.common.toolchain import CTarget, compile_c
from tensmith.compiler.artifact import Code, CompiledModel, TensorSpec

PLANS = Path(__file__).parent / "runtime" / "plans.c"
HOST = platform.machine()
# C that is linked with models: zig makes a C library for each target, which takes seconds
OF_HOST = ("-target", CTarget(HOST, static=False).zig_name)
TYPES = (
    *("f64", "f32", "f16", "bf16"),
    *("i64", "i32", "i16", "i8"),
    *("u64", "u32", "u16", "u8", "bool"),
)

needs_x86 = pytest.mark.skipif(HOST != "x86_64", reason="the models here are for x86-64")

Interface = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[str, ...]]


def _specs(*items: tuple[str, str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(*item) for item in items)


INTERFACES: dict[str, Interface] = {
    "affine": (_specs(("x", "f32", (2, 3))), _specs(("y", "f32", (2, 3))), ()),
    "symbolic": (
        _specs(("a", "f32", ("N", "M")), ("s", "f32", ("M",))),
        _specs(("rows", "f32", ("N",)), ("scaled", "f32", ("N", "M")), ("total", "f64", ())),
        ("N", "M"),
    ),
    "optional": (
        (TensorSpec("a", "f32", ("N", "M")), TensorSpec("s", "f32", ("M",), default=(3,))),
        _specs(("rows", "f32", ("N",)), ("scaled", "f32", ("N", "M")), ("total", "f64", ())),
        ("N", "M"),
    ),
    "positive": (_specs(("x", "i64", ("N",))), _specs(("y", "i64", ("?",))), ("N",)),
    "staged": (
        _specs(("x", "i32", ("N",))),
        (TensorSpec("y", "i32", ("N",)), TensorSpec("stage", "i64", ("N",), stages=3)),
        ("N",),
    ),
    "failing": (_specs(("mode", "i32", (1,))), _specs(("y", "i32", (1,))), ()),
    "parallel": (
        _specs(("x", "f32", ("N",))),
        _specs(("visits", "i64", ("N",)), ("values", "f32", ("N",))),
        ("N",),
    ),
    "slices": (
        _specs(("x", "f32", ("N",))),
        _specs(("first", "i64", ("?",)), ("owner", "i64", ("N",))),
        ("N",),
    ),
    "types": (
        tuple(TensorSpec(f"in_{t}", t, ()) for t in TYPES),
        tuple(TensorSpec(f"out_{t}", t, ()) for t in TYPES),
        (),
    ),
}


# what `link` is given for them
MANIFEST = {"manifest_version": 1, "name": "some", "note": 'quote " slash \\ ü ??/'}


@functools.cache
def plan_object(arch: str) -> bytes:
    """plans.c as an ELF object."""
    with tempfile.TemporaryDirectory() as folder:
        return compile_c([PLANS], CTarget(arch, static=False), Path(folder))[0].read_bytes()


def make_model(
    kind: str,
    folder: Path,
    *,
    arch: str = "x86_64",
    features: tuple[str, ...] = (),
    weights: bytes = struct.pack("<5f", 2.0, 1.0, 1.0, 2.0, 3.0),
    name: str = "",
) -> CompiledModel:
    """The model around `plan_<kind>`; its weights file goes to `folder`. Defaults of inputs begin
    at byte 8 of it."""
    name = name or kind
    path = folder / f"{name}.bin"
    path.write_bytes(weights)
    inputs, outputs, symbols = INTERFACES[kind]
    return CompiledModel(
        name=name,
        inputs=inputs,
        outputs=outputs,
        symbols=symbols,
        code=Code(
            objects=(("plans", plan_object(arch)),),
            plan_symbol=f"plan_{kind}",
            triple=f"{arch}-unknown-linux-gnu",
            features=features,
        ),
        weights=path,
        defaults={spec.name: 8 for spec in inputs if spec.default is not None},
    )
