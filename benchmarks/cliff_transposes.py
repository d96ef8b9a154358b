"""Cases of `cliffs.py` in which an operand lies another way than the result."""

from __future__ import annotations

import numpy as np

from .cliff_cases import Built, case, model, node

SHAPES: dict[str, tuple[list[int], list[int], bool]] = {
    "square": ([1024, 1024], [1, 0], False),
    "nhwc": ([8, 128, 64, 64], [0, 2, 3, 1], False),
    "nchw": ([8, 64, 64, 128], [0, 3, 1, 2], False),
    "odd": ([1001, 777], [1, 0], False),
    "symbolic": ([1000, 900], [1, 0], True),
    "pixels": ([1, 224, 224, 3], [0, 3, 1, 2], False),
    "reversed": ([64, 96, 128], [2, 1, 0], False),
}


def transposed(shape: str, kind: str, add: bool) -> Built:
    """Transpose, and the addition of a tensor that lies like the result."""
    sizes, perm, symbolic = SHAPES[shape]
    rng = np.random.default_rng(0)
    x = rng.integers(-30, 30, sizes).astype(kind)
    nodes = [node("Transpose", ["x"], ["t" if add else "y"], perm=perm)]
    inputs, names = {"x": x}, [f"d{axis}" for axis in range(len(sizes))]
    dims = {"x": names, "z": [names[axis] for axis in perm]} if symbolic else {}
    if add:
        nodes.append(node("Add", ["t", "z"], ["y"]))
        inputs["z"] = np.ascontiguousarray(x.transpose(perm)[::-1])
    return model(nodes, inputs, dims, ["y"])


for shape in SHAPES:
    for kind in ("float32", "float16", "int8"):
        case(f"transpose_{shape}_{kind}", shape, kind, False)(transposed)
        case(f"transpose_add_{shape}_{kind}", shape, kind, True)(transposed)
