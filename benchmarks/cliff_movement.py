"""Cases of `cliffs.py` of one operator that selects or moves elements."""

from __future__ import annotations

import numpy as np

from .cliff_cases import Array, drawn
from .cliff_operators import PICTURE, Fixed, add, whole


def _boxes(count: int) -> Array:
    corner = np.random.default_rng(0).random((1, count, 2), np.float32)
    size = 0.1 * np.random.default_rng(2).random((1, count, 2), np.float32)
    return np.concatenate([corner, corner + size], axis=2)


add("topk_5_of_1000", "TopK", lambda: [drawn(1, 1000), Fixed([5])], 2)
add("topk_5_of_32000", "TopK", lambda: [drawn(8, 32000), Fixed([5])], 2)
add("topk_100_of_20000", "TopK", lambda: [drawn(1, 20000), Fixed([100])], 2)
add("topk_1000_of_20000", "TopK", lambda: [drawn(1, 20000), Fixed([1000])], 2)
add("topk_all", "TopK", lambda: [drawn(4, 5000), Fixed([5000])], 2)
add("topk_rows", "TopK", lambda: [drawn(2048, 64), Fixed([2])], 2)
add("topk_inner", "TopK", lambda: [drawn(1, 100, 56, 56), Fixed([4])], 2, axis=1)
add("topk_i64", "TopK", lambda: [whole(10**6, 1, 20000), Fixed([100])], 2)
add("topk_f64", "TopK", lambda: [drawn(1, 20000).astype(np.float64), Fixed([100])], 2)
add("unique", "Unique", lambda: [whole(1000, 10000)], 4)
add("unique_unsorted", "Unique", lambda: [whole(1000, 10000)], 1, sorted=0)
add("unique_rows", "Unique", lambda: [whole(6, 2000, 4)], 1, axis=0)
add("nonzero", "NonZero", lambda: [drawn(256, 256) > 0.5])
add("compress", "Compress", lambda: [drawn(4096, 32), drawn(4096) > 0], axis=0)
add("argmax_classes", "ArgMax", lambda: [drawn(1, 21, 128, 128)], axis=1)
add("argmax_rows", "ArgMax", lambda: [drawn(64, 8192)], axis=-1)
add("argmin_i64", "ArgMin", lambda: [whole(10**6, 64, 4096)], axis=-1)
for name, count, classes, least in (
    ("", 1000, 1, 0.5),
    ("_classes", 2000, 20, 0.9),
    ("_all", 1000, 4, 0.0),
):
    add(
        f"nms{name}",
        "NonMaxSuppression",
        lambda n=count, c=classes, s=least: [
            _boxes(n),
            np.random.default_rng(1).random((1, c, n), np.float32),
            Fixed([100]),
            Fixed(np.float32([0.5])),
            Fixed(np.float32([s])),
        ],
    )


add("gather_rows", "Gather", lambda: [Fixed(drawn(30000, 384)), whole(30000, 8, 128)])
add("gather_inner", "Gather", lambda: [drawn(256, 1024), whole(1024, 256)], axis=1)
add("gather_middle", "Gather", lambda: [drawn(32, 256, 64), whole(256, 100)], axis=1)
add("gather_elements", "GatherElements", lambda: [drawn(256, 512), whole(512, 256, 128)], axis=1)
add(
    "gather_elements_0",
    "GatherElements",
    lambda: [drawn(512, 256), whole(512, 128, 256)],
    axis=0,
)
add("gather_nd", "GatherND", lambda: [drawn(64, 64, 32), whole(64, 2000, 2)])
add("gather_nd_points", "GatherND", lambda: [drawn(64, 64, 32), whole(32, 20000, 3)])
add(
    "scatter_nd_points",
    "ScatterND",
    lambda: [
        drawn(256, 256),
        np.stack(np.divmod(np.random.default_rng(0).permutation(65536)[:20000], 256), 1),
        drawn(20000),
    ],
)
add(
    "scatter_nd_add",
    "ScatterND",
    lambda: [drawn(256, 64), whole(256, 4000, 1), drawn(4000, 64)],
    reduction="add",
)
for reduction in ("add", "max"):
    add(
        f"scatter_elements_{reduction}",
        "ScatterElements",
        lambda: [drawn(1000, 16), whole(1000, 8000, 16), drawn(8000, 16)],
        axis=0,
        reduction=reduction,
    )
add("onehot", "OneHot", lambda: [whole(1000, 512), Fixed(1000), Fixed(np.float32([0, 1]))])
add("concat_many", "Concat", lambda: [drawn(64, 96, seed=i) for i in range(24)], axis=1)
add("concat_rows", "Concat", lambda: [drawn(1, 64, 48, 48, seed=i) for i in range(6)], axis=1)
add("concat_inner", "Concat", lambda: [drawn(2000, 3, seed=i) for i in range(8)], axis=-1)
add("concat_last_4", "Concat", lambda: [drawn(8400, 4), drawn(8400, 80, seed=1)], axis=-1)
add("split_inner", "Split", lambda: [drawn(8, 256, 1152)], 3, axis=-1, num_outputs=3)
add("split_small", "Split", lambda: [drawn(8400, 4)], 4, axis=-1, num_outputs=4)
for number, (shape, perm) in enumerate(
    (
        ((1, 3, 85, 40, 40), (0, 1, 3, 4, 2)),
        ((2, 8, 7, 8, 7, 96), (0, 1, 3, 2, 4, 5)),
        ((8, 128, 6, 64), (0, 2, 1, 3)),
        ((8, 128, 6, 64), (0, 2, 3, 1)),
        ((1, 224, 224, 3), (0, 3, 1, 2)),
        ((1, 3, 224, 224), (0, 2, 3, 1)),
        ((1, 64, 56, 56), (0, 2, 3, 1)),
        ((1024, 1024), (1, 0)),
        ((16, 4, 4, 16, 64), (4, 2, 0, 1, 3)),
        ((1, 2, 58, 28, 28), (0, 2, 1, 3, 4)),
        ((100, 50, 30), (2, 1, 0)),
        ((4, 16, 16, 4, 4, 24), (0, 5, 1, 3, 2, 4)),
    )
):
    add(f"transpose_{number}_{len(shape)}d", "Transpose", lambda s=shape: [drawn(*s)], perm=perm)
add(
    "transpose_bytes",
    "Transpose",
    lambda: [whole(256, 1, 224, 224, 3, dtype=np.uint8)],
    perm=(0, 3, 1, 2),
)
add("transpose_i64", "Transpose", lambda: [whole(256, 512, 512)], perm=(1, 0))
add(
    "where_rows",
    "Where",
    lambda: [drawn(1, 1, 128, 128) > 0, drawn(8, 6, 128, 128), Fixed(np.float32(-1e9))],
)
add(
    "where_channels",
    "Where",
    lambda: [drawn(1, 64, 1, 1) > 0, drawn(*PICTURE), drawn(*PICTURE, seed=1)],
)
add("where_i64", "Where", lambda: [drawn(256, 256) > 0, whole(9, 256, 256), whole(9, 256, 1)])
add("tile", "Tile", lambda: [drawn(1, 64, 28, 28), Fixed([1, 4, 2, 2])])
add("expand", "Expand", lambda: [drawn(8, 1, 1, 64), Fixed([8, 12, 128, 64])])
add("expand_inner", "Expand", lambda: [drawn(512, 256, 1), Fixed([512, 256, 8])])
add("pad_constant", "Pad", lambda: [drawn(*PICTURE), Fixed([0, 0, 1, 1, 0, 0, 1, 1])])
add(
    "pad_edge",
    "Pad",
    lambda: [drawn(1, 3, 224, 224), Fixed([0, 0, 4, 4, 0, 0, 4, 4])],
    mode="edge",
)
add(
    "pad_reflect",
    "Pad",
    lambda: [drawn(1, 3, 224, 224), Fixed([0, 0, 4, 4, 0, 0, 4, 4])],
    mode="reflect",
)
add("pad_1d", "Pad", lambda: [drawn(1, 16000), Fixed([0, 200, 0, 200])], mode="reflect")
add("slice_inner", "Slice", lambda: [drawn(64, 512, 16), Fixed([2]), Fixed([10]), Fixed([2])])
add(
    "slice_strided",
    "Slice",
    lambda: [
        drawn(1, 96, 56, 56),
        Fixed([0, 0]),
        Fixed([56, 56]),
        Fixed([2, 3]),
        Fixed([2, 2]),
    ],
)
add(
    "slice_reversed",
    "Slice",
    lambda: [drawn(64, 4096), Fixed([-1]), Fixed([-5000]), Fixed([1]), Fixed([-1])],
)
add("reverse_sequence", "ReverseSequence", lambda: [drawn(128, 8, 256), whole(128, 8, low=1)])
add("depth_to_space", "DepthToSpace", lambda: [drawn(1, 256, 28, 28)], blocksize=2)
add(
    "depth_to_space_crd",
    "DepthToSpace",
    lambda: [drawn(1, 48, 64, 64)],
    blocksize=4,
    mode="CRD",
)
add("space_to_depth", "SpaceToDepth", lambda: [drawn(1, 64, 56, 56)], blocksize=2)
add("trilu", "Trilu", lambda: [drawn(8, 256, 256)], upper=0)
add("eye_like", "EyeLike", lambda: [drawn(512, 512)])
add("cast_f64", "Cast", lambda: [drawn(256, 1024)], to=11)
add("cast_i64", "Cast", lambda: [drawn(256, 1024)], to=7)
add("cast_half", "Cast", lambda: [drawn(256, 1024)], to=10)
add("cast_bool", "Cast", lambda: [drawn(256, 1024)], to=9)
add("cast_u8", "Cast", lambda: [drawn(256, 1024, scale=20)], to=3)
