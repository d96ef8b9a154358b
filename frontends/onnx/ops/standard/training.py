"""Optimisers of ai.onnx.preview.training: one step, by the pseudo code of the standard."""

from __future__ import annotations

from collections.abc import Sequence

from .....compiler.ir import DType, Value
from ...site import NotSupported, Site
from ...table import lowers, refuses

TRAINING = "ai.onnx.preview.training"


def _tensors(s: Site, kinds: int) -> list[list[Value]]:
    """What belongs together, for each optimised tensor: itself, its gradient and its states.

    The inputs after the rate and the step count are all tensors, then all gradients, and so on.
    """
    given = [s.input(i) for i in range(2, len(s.inputs))]
    count = len(given) // kinds
    if not given or len(given) % kinds:
        raise ValueError(f"{len(given)} inputs are no whole number of {kinds} each")
    return [given[start::count] for start in range(count)]


def _by_kind(results: Sequence[Sequence[Value]]) -> list[Value]:
    return [value for kind in zip(*results, strict=True) for value in kind]


def _regularized(s: Site, x: Value, gradient: Value) -> Value:
    return s.op_("add", s.op_("mul", x, s.real("norm_coefficient", 0.0)), gradient)


def _rate(s: Site, like: Value) -> Value:
    return s.cast(s.reshape(s.input(0), ()), like.dtype)


def _steps(s: Site) -> Value:
    """The number of steps so far, an i64 scalar."""
    return s.reshape(s.input(1), ())


def _mix(s: Site, share: float, old: Value, new: Value) -> Value:
    """share * old + (1 - share) * new."""
    return s.op_("add", s.op_("mul", old, share), s.op_("mul", new, 1 - share))


@lowers("Adagrad", domain=TRAINING)
def adagrad(s: Site) -> Sequence[Value]:
    decay, epsilon = s.real("decay_factor", 0.0), s.real("epsilon", 1e-6)
    results = []
    for x, gradient, squares in _tensors(s, 3):
        steps = s.cast(_steps(s), x.dtype)
        rate = s.op_("div", _rate(s, x), s.op_("add", s.op_("mul", steps, decay), 1.0))
        g = _regularized(s, x, gradient)
        total = s.op_("add", squares, s.op_("mul", g, g))
        spread = s.op_("add", s.op_("sqrt", total), epsilon)
        step = s.op_("div", s.op_("mul", rate, g), spread)
        results.append([s.op_("sub", x, step), total])
    return _by_kind(results)


@lowers("Adam", domain=TRAINING)
def adam(s: Site) -> Sequence[Value]:
    alpha, beta = s.real("alpha", 0.9), s.real("beta", 0.999)
    epsilon, shrink = s.real("epsilon", 1e-6), 1 - s.real("norm_coefficient_post", 0.0)
    results = []
    for x, gradient, mean, squares in _tensors(s, 4):
        g = _regularized(s, x, gradient)
        v = _mix(s, alpha, mean, g)
        h = _mix(s, beta, squares, s.op_("mul", g, g))
        spread = s.op_("add", s.op_("sqrt", h), epsilon)
        rate = _unbiased(s, _rate(s, x), alpha, beta)
        moved = s.op_("sub", x, s.op_("div", s.op_("mul", rate, v), spread))
        results.append([s.op_("mul", moved, shrink), v, h])
    return _by_kind(results)


def _unbiased(s: Site, rate: Value, alpha: float, beta: float) -> Value:
    """The rate corrected for averages that began at zero; from the second step on."""
    steps = s.cast(_steps(s), DType.F64)
    missing = [
        s.op_("sub", 1.0, s.op_("pow", s.scalar(b, DType.F64), steps)) for b in (alpha, beta)
    ]
    factor = s.op_("div", s.op_("sqrt", missing[1]), missing[0])
    corrected = s.op_("mul", rate, s.cast(factor, rate.dtype))
    return s.op_("where", s.op_("gt", _steps(s), 0), corrected, rate)


@lowers("Momentum", domain=TRAINING)
def momentum(s: Site) -> Sequence[Value]:
    alpha, beta, mode = s.real("alpha"), s.real("beta"), s.text("mode")
    if mode not in ("standard", "nesterov"):
        raise ValueError(f"mode '{mode}' is neither standard nor nesterov")
    results = []
    for x, gradient, velocity in _tensors(s, 3):
        g = _regularized(s, x, gradient)
        later = s.op_("gt", _steps(s), 0)
        share = s.op_("where", later, s.scalar(beta, x.dtype), s.scalar(1.0, x.dtype))
        v = s.op_("add", s.op_("mul", velocity, alpha), s.op_("mul", g, share))
        direction = v if mode == "standard" else s.op_("add", g, s.op_("mul", v, alpha))
        results.append([s.op_("sub", x, s.op_("mul", direction, _rate(s, x))), v])
    return _by_kind(results)


@refuses("Gradient", domain=TRAINING)
def gradient(s: Site) -> Value:
    raise NotSupported(
        "derivatives are not computed", "export the forward pass, or the gradient's own operators"
    )
