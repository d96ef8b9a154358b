"""The C runtime through its Python loader."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cplans import MANIFEST, TYPES, make_model, needs_x86
from together import run_together

from tensmith.backends.common.link import link
from tensmith.runtime.loader import Module, ModuleError, load

pytestmark = needs_x86


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of the shared library of a plan, linked once."""
    folder = tmp_path_factory.mktemp("libraries")
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = link(make_model(kind, folder), "so", folder / f"{kind}.so", MANIFEST)[0]
        return made[kind]

    return get


@pytest.fixture
def module(library) -> Iterator[Callable[..., Module]]:
    opened: list[Module] = []

    def get(kind: str, threads: int = 1) -> Module:
        opened.append(load(library(kind), threads))
        return opened[-1]

    yield get
    for each in opened:
        each.close()


def test_static_shapes_and_weights(module) -> None:
    affine = module("affine")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for _ in range(3):
        np.testing.assert_array_equal(affine(x)["y"], x * 2 + 1)
    np.testing.assert_array_equal(affine({"x": x})["y"], x * 2 + 1)
    np.testing.assert_array_equal(affine(x.tolist())["y"], x * 2 + 1)


def test_interface_and_manifest(module) -> None:
    symbolic = module("symbolic")
    assert [(s.name, s.dtype, s.dims) for s in symbolic.inputs] == [
        ("a", "f32", ("N", "M")),
        ("s", "f32", ("M",)),
    ]
    assert [s.dims for s in symbolic.outputs] == [("N",), ("N", "M"), ()]
    assert symbolic.manifest == MANIFEST
    assert repr(symbolic).startswith("Module(symbolic: (a: f32[N, M], s: f32[M]) ->")


def test_symbolic_shapes_change_from_call_to_call(module) -> None:
    symbolic = module("symbolic")
    rng = np.random.default_rng(0)
    for n, m in [(3, 4), (3, 4), (1, 1), (0, 5), (200, 300), (3, 4), (200, 300)]:
        a = rng.standard_normal((n, m), np.float32)
        s = rng.standard_normal(m, np.float32)
        out = symbolic({"s": s, "a": a})
        np.testing.assert_allclose(out["rows"], a.sum(1), atol=1e-4)
        np.testing.assert_array_equal(out["scaled"], a * s)
        assert out["total"].shape == ()
        np.testing.assert_allclose(out["total"], out["rows"].astype(np.float64).sum())


def test_results_do_not_share_memory(module) -> None:
    affine = module("affine")
    x = np.ones((2, 3), np.float32)
    first, second, third = (affine(x * i)["y"] for i in range(3))
    np.testing.assert_array_equal(first, np.full((2, 3), 1.0))
    np.testing.assert_array_equal(second, np.full((2, 3), 3.0))
    np.testing.assert_array_equal(third, np.full((2, 3), 5.0))


def test_large_results_do_not_share_memory_while_they_are_referred_to(module) -> None:
    symbolic = module("symbolic")
    feeds = [np.full((40, 300), value, np.float32) for value in range(5)]
    twos = np.full(300, 2, np.float32)
    kept = [symbolic(feed, twos)["scaled"] for feed in feeds]
    rows = [symbolic(feed, twos)["scaled"][7] for feed in feeds]
    for value, (whole, row) in enumerate(zip(kept, rows, strict=True)):
        assert (whole == 2 * value).all()
        assert (row == 2 * value).all()


def test_memory_of_a_dropped_result_is_used_again(module) -> None:
    symbolic = module("symbolic")
    feed, twos = np.ones((40, 300), np.float32), np.full(300, 2, np.float32)
    places = {symbolic(feed, twos)["scaled"].ctypes.data for _ in range(9)}
    assert len(places) <= 3  # the first result is a copy


def test_calls_like_the_last_one_and_others_after_them(module) -> None:
    symbolic = module("symbolic")
    rng = np.random.default_rng(1)
    base = rng.standard_normal((80, 600), np.float32)
    s = rng.standard_normal(300, np.float32)
    alike = [np.ascontiguousarray(base[i : i + 40, :300]) for i in range(4)]
    others = [base[::2, ::2], base[:7, :300], base[:40, 300:], base[:0, :300]]
    for a in [*alike, others[0], *alike, others[1], *alike, *others, *alike]:
        out = symbolic({"a": a, "s": s})
        np.testing.assert_array_equal(out["scaled"], a * s)
        np.testing.assert_allclose(out["rows"], a.sum(1, dtype=np.float64), atol=1e-3)
        assert list(out) == ["rows", "scaled", "total"]


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"a": np.zeros((2, 3)), "s": np.zeros(3, np.float32)}, "'a': expected element type"),
        ({"a": np.zeros((2, 3), np.float32)}, "missing"),
        ({"a": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}, "unknown"),
        ({"a": np.zeros((2, 3), np.float32), "s": np.zeros(4, np.float32)}, "expected 3 as in"),
    ],
)
def test_a_call_like_the_last_one_but_for_a_fault(module, feed, message) -> None:
    symbolic = module("symbolic")
    good = {"a": np.ones((2, 3), np.float32), "s": np.ones(3, np.float32)}
    for _ in range(2):
        for _ in range(3):
            np.testing.assert_array_equal(symbolic(good)["rows"], [3, 3])
        with pytest.raises(ModuleError, match=message):
            symbolic(feed)


def test_large_results_of_calls_alike_do_not_share_memory(module) -> None:
    symbolic = module("symbolic")
    twos = np.full(300, 2, np.float32)
    feeds = [{"a": np.full((40, 300), value, np.float32), "s": twos} for value in range(6)]
    kept = [symbolic(feed) for feed in feeds]
    for value, out in enumerate(kept):
        assert (out["scaled"] == 2 * value).all()
        assert (out["rows"] == 300 * value).all()


def test_a_failure_of_a_call_like_the_last_one(module) -> None:
    failing = module("failing")
    for _ in range(3):
        assert failing({"mode": np.array([0], np.int32)})["y"] == 0
    with pytest.raises(ModuleError, match="out of range"):
        failing({"mode": np.array([1], np.int32)})
    assert failing({"mode": np.array([0], np.int32)})["y"] == 0
    failing.close()
    with pytest.raises(ModuleError, match="closed"):
        failing({"mode": np.array([0], np.int32)})


def test_sizes_that_only_the_run_knows(module) -> None:
    positive = module("positive")
    for values in ([1, -2, 3], [-1, -1, -1], [4, 5, 6], []):
        x = np.array(values, np.int64)
        np.testing.assert_array_equal(positive(x)["y"], x[x > 0])


def test_strided_and_unaligned_inputs(module) -> None:
    symbolic = module("symbolic")
    base = np.arange(48, dtype=np.float32).reshape(6, 8)
    s = np.ones(4, np.float32)
    for a in (base[::2, ::2], base[::-1, 3::-1], base.T[:6, :4], base[:, 4:]):
        np.testing.assert_array_equal(symbolic(a, s)["scaled"], a)
    shifted = np.zeros(4 * 8 + 1, np.uint8)[1:].view(np.float32).reshape(2, 4)
    np.testing.assert_array_equal(symbolic(shifted, s)["scaled"], shifted)


def test_every_element_type(module) -> None:
    types = module("types")
    for value in (1, 0, 1, 1):
        inputs = [np.array(value, spec.numpy_dtype) for spec in types.inputs]
        outputs = types(*inputs)
        for name, given in zip(TYPES, inputs, strict=True):
            assert outputs[f"out_{name}"].dtype == given.dtype
            assert outputs[f"out_{name}"] == given


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((np.zeros((2, 3), np.float64), np.zeros(3, np.float32)), "'a': expected element type"),
        ((np.zeros(3, np.float32), np.zeros(3, np.float32)), r"'a': expected 2 dim.* \[N, M\]"),
        (
            (np.zeros((2, 3), np.float32), np.zeros(4, np.float32)),
            r"'s': dimension 0 \(M\): expected 3 as in dimension 1 of input 'a', got 4"
            r"; compile with --shape 's:\[\?\]'",
        ),
        ((np.zeros((2, 3), np.float32),), "expected 2 inputs, got 1"),
        (({"a": np.zeros((2, 3), np.float32), "t": 1},), r"missing \['s'\], unknown \['t'\]"),
        (("text", np.zeros(3, np.float32)), "input 'a'"),
        ((None, np.zeros(3, np.float32)), "input 'a': None is given"),
        ((np.zeros((2, 3)), np.zeros(3, np.float32)), r"got float64; array.astype\('float32'\)"),
    ],
)
def test_wrong_inputs_name_the_fault(module, inputs, message) -> None:
    symbolic = module("symbolic")
    with pytest.raises(ModuleError, match=message):
        symbolic(*inputs)
    a = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(symbolic(a, a[0])["rows"], [3, 3])


def test_wrong_fixed_size(module) -> None:
    message = (
        r"'x': dimension 1: expected 3, got 4 \(shape \[2, 4\]\); "
        r"compile with --shape 'x:\[2,\?\]' where any size is to be taken"
    )
    with pytest.raises(ModuleError, match=message):
        module("affine")(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("mode", "status", "message"),
    [
        (1, "TS_ERROR_MODEL", r"Gather 'embed': index 9 is out of range \[0, 4\)"),
        (2, "TS_ERROR_MODEL", "failed with code 3"),
        (3, "TS_ERROR_MODEL", "output 'y' was not computed"),
        (4, "TS_ERROR_MEMORY", "no memory for 1152921504606846976 bytes of scratch memory"),
        (5, "TS_ERROR_MEMORY", "no memory for -8 bytes"),
    ],
)
def test_failures_of_the_model(module, mode, status, message) -> None:
    failing = module("failing")
    with pytest.raises(ModuleError, match=message) as caught:
        failing(np.array([mode], np.int32))
    assert caught.value.status == status
    assert failing(np.array([0], np.int32))["y"] == 0


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_iteration_is_done_once(module, threads) -> None:
    parallel = module("parallel", threads)
    assert parallel.threads == threads
    for n in (1, 2, 7, 1000):
        x = np.arange(n, dtype=np.float32)
        result = parallel(x)
        np.testing.assert_array_equal(result["visits"], np.full(n, 50))
        np.testing.assert_array_equal(result["values"], x / 2)


@pytest.mark.parametrize(("threads", "n"), [(1, 5), (2, 2), (2, 1000), (3, 1000), (5, 23)])
def test_every_thread_begins_with_its_own_slice_and_those_through_take_the_rest(
    module, threads, n
) -> None:
    out = module("slices", threads)(np.zeros(n, np.float32))
    share, extra = divmod(n, threads)
    begins = [t * share + min(t, extra) for t in range(threads)]
    np.testing.assert_array_equal(out["first"], begins)
    if threads > 1:  # the last thread keeps its first part until all else is done
        last, size = threads - 1, n - begins[-1]
        kept = begins[-1] + max(1, size // 2)
        np.testing.assert_array_equal(
            out["owner"] == last, (np.arange(n) >= begins[-1]) & (np.arange(n) < kept)
        )
    assert set(out["owner"]) <= set(range(threads))


def test_subnormals_are_zero_in_every_thread_and_the_caller_keeps_its_mode(module) -> None:
    parallel = module("parallel", 2)
    tiny = np.full(64, np.finfo(np.float32).smallest_subnormal * 8, np.float32)
    np.testing.assert_array_equal(parallel(tiny)["values"], np.zeros(64))
    assert (tiny * np.float32(0.5) > 0).all()


def test_instances_run_at_the_same_time(library) -> None:
    errors: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with load(library("parallel"), threads=2) as mine:
            for _ in range(20):
                x = rng.standard_normal(int(rng.integers(1, 5000)), np.float32)
                if not np.array_equal(mine(x)["values"], x / 2):
                    errors.append(f"seed {seed}")

    run_together(work)
    assert not errors


def test_one_module_serves_several_python_threads(module) -> None:
    affine = module("affine")
    wrong: list[int] = []

    def work(k: int) -> None:
        x = np.full((2, 3), k, np.float32)
        wrong.extend(k for _ in range(200) if not (affine(x)["y"] == 2 * k + 1).all())

    run_together(work)
    assert not wrong


def test_threads_survive_a_fork(module) -> None:
    parallel = module("parallel", 2)
    x = np.arange(100, dtype=np.float32)
    parallel(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(parallel(x)["values"], x / 2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_bench_counts_runs(module) -> None:
    durations = module("affine").bench(np.zeros((2, 3), np.float32), warmup=2, iterations=7)
    assert durations.shape == (7,)
    assert (durations >= 0).all()
    with pytest.raises(ModuleError):
        module("failing").bench(np.array([1], np.int32))


def test_closed_module_refuses(module) -> None:
    affine = module("affine")
    affine.close()
    affine.close()
    with pytest.raises(ModuleError, match="closed"):
        affine(np.zeros((2, 3), np.float32))


def test_missing_cpu_feature_is_an_error_not_a_crash(tmp_path) -> None:
    path = link(
        make_model("affine", tmp_path, features=("sse2", "avx1024")), "so", tmp_path / "m.so"
    )[0]
    with pytest.raises(ModuleError, match="'affine' was compiled for a CPU with 'avx1024'") as err:
        load(path)
    assert err.value.status == "TS_ERROR_CPU"


@pytest.mark.parametrize("threads", [-1, 5000])
def test_absurd_thread_counts(library, threads) -> None:
    with pytest.raises(ModuleError, match="threads: expected 0 to 1024"):
        load(library("affine"), threads)


def test_files_that_are_no_models(tmp_path) -> None:
    with pytest.raises(ModuleError, match="no such file"):
        load(tmp_path / "absent.so")
    (tmp_path / "text.so").write_text("not a library")
    for content in ("not a library", "not a library, however long it is" * 99):
        path = tmp_path / "text.so"
        path.write_text(content)
        with pytest.raises(
            ModuleError, match=f"cannot load '{path}': [A-Za-z ]+; it is no library"
        ):
            load(path)


def test_a_rewritten_file_is_loaded_anew(tmp_path) -> None:
    path = tmp_path / "model.so"
    x = np.ones((2, 3), np.float32)
    link(make_model("affine", tmp_path), "so", path)
    old = load(path)
    link(make_model("affine", tmp_path, weights=np.float32([10, 0]).tobytes()), "so", path)
    with load(path) as new:
        np.testing.assert_array_equal(new(x)["y"], x * 10)
        np.testing.assert_array_equal(old(x)["y"], x * 3)
    old.close()


def test_side_file_of_weights(tmp_path) -> None:
    x = np.ones((2, 3), np.float32)
    model = make_model("affine", tmp_path)
    files = link(model, "so", tmp_path / "m.so", side_file_threshold=4)
    assert [f.name for f in files] == ["m.so", "m.so.weights"]
    with load(files[0]) as module:
        np.testing.assert_array_equal(module(x)["y"], x * 3)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(files[0], moved / "other.so")
    with pytest.raises(ModuleError, match=r"weights file .*No such file"):
        load(moved / "other.so")
    shutil.copy(files[1], moved / "m.so.weights")
    with load(moved / "other.so") as module:
        np.testing.assert_array_equal(module(x)["y"], x * 3)
    data = bytearray(files[1].read_bytes())
    data[-1] ^= 1
    (moved / "m.so.weights").write_bytes(data)
    with pytest.raises(ModuleError, match="truncated or belongs to another build"):
        load(moved / "other.so")


def test_weights_behind_the_library(tmp_path) -> None:
    x = np.ones((2, 3), np.float32)
    [file] = link(make_model("affine", tmp_path), "so", tmp_path / "m.so", appended_threshold=4)
    moved = file.rename(tmp_path / "other.so")
    with load(moved) as module:
        np.testing.assert_array_equal(module(x)["y"], x * 3)
    moved.write_bytes(moved.read_bytes()[:-1])
    with pytest.raises(ModuleError, match="truncated or belongs to another build"):
        load(moved)
