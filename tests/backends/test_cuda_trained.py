"""Models' shared libraries for GPUs, on the driver that is none: trained ones against stored
outputs, networks of the zoo against the same for processors.

The large ones take an interpreter up to a minute each:
`.ci/test -m slow tests/backends/test_cuda_trained.py`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_models import SM_80
from cuda_runs import needs_triton

import tensmith
from tensmith.backends.cuda.fake.install import FakeDriver, install

SHARED = Path(__file__).resolve().parents[3] / "shared" / "models"
QUICK = ("mnist", "digits_cnn", "resnet8", "resnet8_qdq", "silero_vad")
SLOW = (
    "kws", "kws_qdq", "kws_savedmodel", "magika", "dtln_1", "minilm", "yunet_n_dynamic",
    "ultraface_rfb320", "openseeface_retinaface", "super_resolution", "super_resolution_e2e",
)  # fmt: skip
ZOO = Path(__file__).resolve().parents[2] / "benchmarks" / "zoo"
NETWORKS = (
    "resnet18", "mobilenet_v2", "resnet50", "efficientnet_b0", "vit-small", "bert-base", "gpt2",
    "llama-decode", "bert-base-dyn", "llama-decode-dyn",
)  # fmt: skip
CLOSE = 1e-4  # of the peak of an output
pytestmark = needs_triton


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    found = install()
    found.be(80, SM_80)
    yield found
    gc.collect()
    assert found.live == (0, 0), "memory or objects of the driver were not given back"


def _of_one_step(array: Any, rank: int) -> Any:
    """The first of stacked steps of a sequence, or what is the same in all of them."""
    return array[0] if array.ndim > rank else array


def _check(got: Any, want: Any, bound: Mapping[str, float], where: str) -> None:
    """Within the bounds that are stored beside the outputs."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    apart = np.abs(got.astype("f8") - want.astype("f8"))
    over = apart > bound["atol"] + bound["rtol"] * np.abs(want.astype("f8"))
    assert not over.any(), f"{where}: {apart.max():.3g} apart, of {np.abs(want).max():.3g}"
    share = np.count_nonzero(apart) / apart.size
    assert share <= bound.get("max_fraction_differing", 1), f"{where}: {share:.2%} differ"


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_models_give_their_stored_outputs(name: str, tmp_path: Path, driver: FakeDriver) -> None:
    given = next((path for path in SHARED.glob(f"*/{name}")), None)
    if given is None:
        pytest.skip(f"{SHARED} has no '{name}'")
    path = tmp_path / f"{name}.so"
    tensmith.compile(given / "model.onnx", target="cuda:sm_80").save(path)
    module = tensmith.load(path)
    ranks = {spec.name: len(spec.dims) for spec in (*module.inputs, *module.outputs)}
    inputs, outputs = np.load(given / "inputs_0.npz"), np.load(given / "outputs_0.npz")
    bounds = json.loads((given / "meta.json").read_text())["tolerance"]
    got = module({key: _of_one_step(inputs[key], ranks[key]) for key in inputs.files})
    for key in outputs.files:
        _check(got[key], _of_one_step(outputs[key], ranks[key]), bounds[key], f"{name}, {key}")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_they_do_on_processors(
    name: str, tmp_path: Path, driver: FakeDriver
) -> None:
    folder = ZOO / name
    if not folder.exists():
        pytest.skip("it is not exported (python -m benchmarks.zoo)")
    found = []
    with np.load(folder / "inputs.npz") as arrays:
        inputs = {key: arrays[key] for key in arrays.files}
    for target in ("native", "cuda:sm_80"):
        path = tmp_path / f"{target.replace(':', '_')}.so"
        tensmith.compile(folder / "model.onnx", target=target).save(path)
        found.append({key: np.array(y) for key, y in tensmith.load(path)(inputs).items()})
        path.unlink()
    want, got = found
    assert got.keys() == want.keys()
    for key, array in want.items():
        assert got[key].shape == array.shape
        peak = np.abs(array).max()
        assert np.isfinite(peak)
        assert peak > 0
        assert np.abs(got[key] - array).max() <= CLOSE * peak, key
