"""Cases of `cliffs.py` of one operator that resizes or samples pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cliff_cases import drawn
from .cliff_operators import Fixed, add

scales = Fixed(np.float32([1, 1, 2, 2]))
odd = Fixed(np.array([1, 32, 75, 99]))
for mode in ("nearest", "linear", "cubic"):
    for name, by in (
        ("twice", [scales]),
        ("sizes", [None, odd]),
        ("half", [Fixed(np.float32([1, 1, 0.5, 0.5]))]),
    ):
        add(
            f"resize_{mode}_{name}",
            "Resize",
            lambda b=tuple(by): [drawn(1, 32, 56, 56), None, *b],
            mode=mode,
        )
    add(
        f"resize_{mode}_few",
        "Resize",
        lambda: [drawn(1, 3, 240, 320), None, None, Fixed(np.array([1, 3, 224, 224]))],
        mode=mode,
    )
add(
    "resize_corners",
    "Resize",
    lambda: [drawn(1, 32, 56, 56), None, scales],
    mode="linear",
    coordinate_transformation_mode="align_corners",
)
add(
    "resize_antialias",
    "Resize",
    lambda: [drawn(1, 3, 480, 640), None, None, Fixed(np.array([1, 3, 224, 224]))],
    mode="linear",
    antialias=1,
)
add(
    "resize_1d",
    "Resize",
    lambda: [drawn(1, 64, 1000), None, Fixed(np.float32([1, 1, 4]))],
    mode="linear",
)
add(
    "resize_3d",
    "Resize",
    lambda: [drawn(1, 8, 16, 16, 16), None, Fixed(np.float32([1, 1, 2, 2, 2]))],
    mode="linear",
)
for mode in ("linear", "nearest", "cubic"):
    add(
        f"grid_sample_{mode}",
        "GridSample",
        lambda: [drawn(1, 32, 64, 64), np.clip(drawn(1, 48, 48, 2, scale=0.5), -1.1, 1.1)],
        mode=mode,
    )
add(
    "grid_sample_few",
    "GridSample",
    lambda: [drawn(1, 1, 128, 128), drawn(1, 128, 128, 2, scale=0.5)],
    mode="linear",
)
add(
    "grid_sample_border",
    "GridSample",
    lambda: [drawn(8, 32, 32, 32), drawn(8, 100, 4, 2, scale=0.6)],
    mode="linear",
    padding_mode="border",
)
add(
    "grid_sample_3d",
    "GridSample",
    lambda: [drawn(1, 8, 16, 16, 16), drawn(1, 12, 12, 12, 3, scale=0.5)],
    mode="linear",
)
add("affine_grid", "AffineGrid", lambda: [drawn(4, 2, 3), Fixed(np.array([4, 3, 128, 128]))])
rois = np.concatenate(
    [
        np.random.default_rng(0).random((100, 2)) * 100,
        120 + np.random.default_rng(1).random((100, 2)) * 80,
    ],
    1,
).astype(np.float32)
REGIONS: dict[str, dict[str, Any]] = {
    "roi_align": {"sampling_ratio": 2},
    "roi_align_open": {"sampling_ratio": 0},
    "roi_align_max": {"sampling_ratio": 2, "mode": "max"},
}
for name, attributes in REGIONS.items():
    add(
        name,
        "RoiAlign",
        lambda: [drawn(1, 64, 50, 50), rois, np.zeros(100, np.int64)],
        output_height=7,
        output_width=7,
        spatial_scale=0.25,
        **attributes,
    )
add(
    "max_roi_pool",
    "MaxRoiPool",
    lambda: [drawn(1, 64, 50, 50), np.concatenate([np.zeros((100, 1), np.float32), rois], 1)],
    pooled_shape=[7, 7],
    spatial_scale=0.25,
)
add(
    "col2im",
    "Col2Im",
    lambda: [drawn(1, 32 * 9, 3136), Fixed([56, 56]), Fixed([3, 3])],
    pads=[1] * 4,
)
add(
    "center_crop_pad",
    "CenterCropPad",
    lambda: [drawn(3, 240, 320), Fixed([224, 224])],
    axes=[1, 2],
)
