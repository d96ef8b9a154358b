"""Powers, remainders and functions of f64 in vectors, against numpy's in f64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, needs_native, run_all
from suites.case import CaseBuilder, N

from tensmith.compiler.ir import DType

SETTINGS = [Setting("native", 2), Setting("x86-64-v3", 2)]
TINY = float(np.finfo(np.float32).tiny)
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 3.4e38, 2.0, -3.0, 0.5]
pytestmark = needs_native


def computed(
    op: str, setting: Setting, folder: Path, *operands: np.ndarray, dtype: DType = DType.F32
) -> np.ndarray:
    if setting.missing():
        pytest.skip(setting.missing())
    c = CaseBuilder(op)
    names = [f"x{number}" for number in range(len(operands))]
    c.output(c.op(op, *(c.input(N, dtype=dtype, name=name) for name in names)))
    feeds = dict(zip(names, operands, strict=True))
    found = run_all({"all": Job(c.graph(), feeds)}, setting, folder)["all"]
    if isinstance(found, Exception):
        raise found
    return np.asarray(found["y0"])


def pairs(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers between powers of two, and all pairs of special ones, also beside usual ones."""
    rng = np.random.default_rng(0)
    a, b = (2.0 ** rng.uniform(low, high, 20000) for _ in range(2))
    special = np.array(SPECIAL * len(SPECIAL)), np.repeat(SPECIAL, len(SPECIAL))
    a, b = (np.concatenate([x, y]).astype(np.float32) for x, y in zip((a, b), special, strict=True))
    order = rng.permutation(len(a))
    return a[order], b[order]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_powers(setting: Setting, tmp_path: Path) -> None:
    base, exponent = pairs(-20, 6)
    exponent *= np.random.default_rng(1).choice([-1, 1], len(base)).astype(np.float32)
    denormal = np.float32([1e-45, 1e-42, 3e-39, 1e-38, -1e-42, -1e-38])
    powers = np.float32([0.5, -0.5, 2, -2, 3, -3, 0.25, 1, -1, 1 / 3])
    base = np.concatenate([base, denormal.repeat(len(powers))])
    exponent = np.concatenate([exponent, np.tile(powers, len(denormal))])
    found = computed("pow", setting, tmp_path, base, exponent)
    taken = np.where(np.abs(base) < TINY, np.copysign(np.float32(0), base), base)
    # operands below the least normal number may be taken as zero
    assert (is_power(found, base, exponent) | is_power(found, taken, exponent)).all()
    with np.errstate(all="ignore"):
        wanted = np.power(base, exponent)
    zeros = (wanted == 0) & (base == 0)
    np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(wanted[zeros]))


def is_power(found: np.ndarray, base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Where the power is right: to a unit in the last place, or zero for one below the least
    normal number."""
    with np.errstate(all="ignore"):
        wide = np.power(base.astype(np.float64), exponent.astype(np.float64))
        wanted = wide.astype(np.float32)
        unit = np.spacing(np.maximum(np.abs(wanted), TINY)).astype(np.float64)
        near = np.maximum(np.abs(found.astype(np.float64) - wide) - TINY, 0) / unit <= 1.0
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return np.where(np.isfinite(wanted), near, same)


@pytest.mark.parametrize("op", ["pow", "log"])
def test_denormal_doubles(op: str, tmp_path: Path) -> None:
    """They are what they are, or zeros, but no other number."""
    x = np.array([5e-324, 1e-310, 2e-308] * 8)
    operands = (x, np.repeat([0.5, -0.5, 3], 8)) if op == "pow" else (x,)
    found = computed(op, SETTINGS[0], tmp_path, *operands, dtype=DType.F64)
    function = getattr(np, {"pow": "power"}.get(op, op))
    with np.errstate(all="ignore"):
        exact, of_zero = function(*operands), function(np.zeros(len(x)), *operands[1:])
        near = np.abs(found - exact) <= 1e-15 * np.abs(exact)
    assert (near | (found == of_zero)).all()


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("op", ["fmod", "mod"])
def test_remainders_are_exact(setting: Setting, op: str, tmp_path: Path) -> None:
    """Quotients of all sizes, dividends next to multiples among them."""
    a, b = pairs(-30, 30)
    normal = (np.abs(a) >= TINY) | (a == 0), (np.abs(b) >= TINY) | (b == 0)
    a, b = a[normal[0] & normal[1]], b[normal[0] & normal[1]]
    with np.errstate(all="ignore"):
        multiple = (np.round(a / b) * b).astype(np.float32)
    a = np.concatenate([a, multiple, np.nextafter(multiple, np.float32(0))])
    signs = np.random.default_rng(2).choice([-1, 1], len(a)).astype(np.float32)
    a, b = a * signs, np.tile(b, 3)
    found = computed(op, setting, tmp_path, a, b)
    with np.errstate(all="ignore"):
        wanted = (np.fmod if op == "fmod" else np.mod)(a, b)
    kept = np.isnan(wanted) | (np.abs(wanted) >= TINY) | (wanted == 0)
    np.testing.assert_array_equal(found[kept], wanted[kept])
    zeros = kept & (wanted == 0)
    np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(wanted[zeros]))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_hyperbolic_tangents_of_doubles(setting: Setting, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    near, small = rng.uniform(-25, 25, 20000), 10.0 ** rng.uniform(-300, 2, 2000)
    x = np.concatenate([near, near / 25, small, -small, [*SPECIAL, 0.625, -22, 1e308]])
    found = computed("tanh", setting, tmp_path, x, dtype=DType.F64)
    wanted = np.tanh(x.astype(np.longdouble))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    finite = ~np.isnan(x)
    unit = np.spacing(np.maximum(np.abs(found[finite]), np.finfo(np.float64).tiny))
    assert (np.abs(found[finite] - wanted[finite]) / unit).max() <= 2.0
    np.testing.assert_array_equal(np.signbit(found), np.signbit(x))
