"""The cache of responses: whole keys, a bound, the oldest goes first, many threads."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from cplans import MANIFEST, OF_HOST, make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.backends.common.toolchain import RUNTIME
from tensmith.backends.common.zig import run_zig
from tensmith.runtime import abi
from tensmith.runtime.loader import Module, ModuleError, load

pytestmark = needs_x86
LEAST = abi.LEAST_CACHE_BYTES


def _library(kind: str, folder: Path) -> Path:
    return link(make_model(kind, folder), "so", folder / f"{kind}.so", MANIFEST)[0]


def _hits(module: Module) -> tuple[int, int]:
    cache = module.counters().cache
    assert cache is not None
    return cache.hits, cache.misses


def test_equal_inputs_get_equal_outputs(tmp_path: Path) -> None:
    library = _library("symbolic", tmp_path)
    rng = np.random.default_rng(0)
    with load(library, cache_bytes=1 << 20) as cached, load(library) as plain:
        feeds = [
            (rng.normal(size=(n, m)).astype(np.float32), rng.normal(size=m).astype(np.float32))
            for n, m in ((2, 3), (3, 2), (6, 1), (1, 6), (0, 4))
        ]
        for _ in range(3):
            for a, s in feeds:
                told, wanted = cached(a, s), plain(a, s)
                for name in wanted:
                    np.testing.assert_array_equal(told[name], wanted[name])
        assert _hits(cached) == (10, 5)
        told["rows"][...] = 7  # what a caller gets is its own
        np.testing.assert_array_equal(cached(*feeds[-1])["scaled"], plain(*feeds[-1])["scaled"])
        a, s = feeds[0]
        strided = np.stack([a, a], axis=-1)[..., 0]
        np.testing.assert_array_equal(cached(strided, s)["rows"], plain(a, s)["rows"])
        assert _hits(cached) == (12, 5)
        assert cached.counters().calls == 17
        assert plain.counters().cache is None


def test_one_bit_makes_another_key(tmp_path: Path) -> None:
    with load(_library("affine", tmp_path), cache_bytes=LEAST) as module:
        x = np.zeros((2, 3), np.float32)
        first = module(x)["y"].copy()
        x.view(np.uint8)[1, 11] ^= 1
        module(x)
        assert _hits(module) == (0, 2)
        x.view(np.uint8)[1, 11] ^= 1
        np.testing.assert_array_equal(module(x)["y"], first)
        assert _hits(module) == (1, 2)


def test_failures_are_not_kept(tmp_path: Path) -> None:
    with load(_library("staged", tmp_path), cache_bytes=LEAST) as module:
        for _ in range(2):
            with pytest.raises(ModuleError, match="no such stage"):
                module(np.array([-1], np.int32))
        assert _hits(module) == (0, 2)
        for _ in range(2):  # of a cascade hits count as rows, too
            module(np.array([0, 2], np.int32))
        assert module.counters().answered == (2, 0, 2)
        outputs = {"y": np.empty(1, np.int32), "stage": np.empty(1, np.int64)}
        with pytest.raises(ModuleError, match="expected 2, got 1"):
            module.run_into([np.array([0, 2], np.int32)], outputs)


def test_the_bound_holds_and_the_oldest_goes(tmp_path: Path) -> None:
    with load(_library("parallel", tmp_path), cache_bytes=LEAST) as module:
        feeds = [np.full(1000, n, np.float32) for n in range(8)]  # 4 KB in, 12 KB out
        for x in feeds:
            module(x)
            cache = module.counters().cache
            assert cache is not None
            assert cache.bytes <= LEAST
        assert (cache.entries, cache.evicted) == (4, 4)
        for n in (5, 0, 4, 6, 5):  # 4 goes for 0, 6 for 4, and 7 for 6
            module(feeds[n])
        assert _hits(module) == (2, 11)
        big = np.zeros(20_000, np.float32)  # more than all of it
        module(big)
        module(big)
        assert _hits(module) == (2, 13)
        assert module.counters().cache.entries == 4  # type: ignore[union-attr]


def test_what_does_not_fit_evicts_nothing(tmp_path: Path) -> None:
    """Down to the largest entry that fits, which takes the place of the one before it."""
    with load(_library("parallel", tmp_path), cache_bytes=LEAST) as module:
        module(np.zeros(1, np.float32))
        for size in range(LEAST // 16, 0, -1):  # 16 bytes an element
            module(np.zeros(size, np.float32))
            cache = module.counters().cache
            assert cache is not None
            assert cache.entries == 1
            if cache.evicted:
                break
        module(np.zeros(size, np.float32))
        assert _hits(module)[0] == 1


def test_sizes_that_cannot_be(tmp_path: Path) -> None:
    header = (RUNTIME / "tensmith.h").read_text()
    for name, known in (("LEAST_CACHE_BYTES", LEAST), ("MOST_STAGES", abi.MOST_STAGES)):
        assert re.findall(rf"#define TS_{name} (\d+)\n", header) == [str(known)]
    with pytest.raises(ModuleError, match="65536 or more"):
        load(_library("affine", tmp_path), cache_bytes=100)


def test_programs_share_one_among_instances(tmp_path: Path) -> None:
    program = link(make_model("staged", tmp_path), "exe", tmp_path / "staged", MANIFEST)[0]
    np.save(tmp_path / "x.npy", np.arange(3, dtype=np.int32).reshape(3, 1))
    words = [program, "--input", f"x={tmp_path}/x.npy", "--measure", "--duration", "0.01", "--json"]
    run = subprocess.run(
        [*words, "--cache", "1M", "--instances", "2", "--warmup", "30"],  # of each
        capture_output=True,
        check=True,
    )
    told = json.loads(run.stdout)["cache"]
    assert told["entries"] == 3
    assert 3 <= told["misses"] <= 6
    assert told["hits"] >= 54
    assert (
        json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["cache"] is None
    )
    bad = subprocess.run([*words, "--cache", "12"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "64K at least" in bad.stderr


_THREADS = """#include <pthread.h>
#include <stdio.h>
#include "tensmith.h"
const ts_model *ts_model_affine(void);
static ts_cache *cache;
static void *work(void *seed) {
  ts_options options = TS_OPTIONS_DEFAULT;
  options.cache = cache;
  ts_instance *instance;
  if (ts_create(ts_model_affine(), &options, &instance)) return "create";
  int64_t shape[2] = {2, 3};
  float x[6] = {0};
  for (int i = 0; i < 3000; ++i) {
    x[0] = (float)(i % 2 ? i % 20 : (i * 7 + *(int *)seed) % 900);
    DLTensor in = {x, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, shape, NULL, 0}, out = {0};
    if (ts_run(instance, &in, 1, &out, 1)) return "run";
    if (((float *)out.data)[0] != x[0] * 2 + 1) return "a wrong answer";
  }
  ts_destroy(instance);
  return NULL;
}
int main(void) {
  if (ts_cache_create(TS_LEAST_CACHE_BYTES, &cache)) return 1;
  pthread_t threads[4];
  int seeds[4] = {0, 1, 2, 3};
  for (int i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, work, &seeds[i]);
  for (int i = 0; i < 4; ++i) {
    void *why;
    pthread_join(threads[i], &why);
    if (why) return puts(why), 2;
  }
  ts_cache_counters found = {sizeof found};
  if (ts_cache_read(cache, &found) || found.hits + found.misses != 12000 || found.hits < 1000 ||
      !found.evicted || found.bytes > TS_LEAST_CACHE_BYTES)
    return puts("counters"), 3;
  ts_cache_destroy(cache);
  return 0;
}
"""


def test_instances_of_several_threads_share_one(tmp_path: Path) -> None:
    """With more keys than fit."""
    archive = link(make_model("affine", tmp_path), "lib", tmp_path / "affine.a", MANIFEST)[0]
    (tmp_path / "threads.c").write_text(_THREADS)
    words = ["cc", *OF_HOST, "-D_GNU_SOURCE", f"-I{RUNTIME}", "-o", "threads", "threads.c"]
    run_zig([*words, archive.name, "-lm", "-ldl", "-lpthread"], tmp_path)
    result = subprocess.run([tmp_path / "threads"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_many_python_threads(tmp_path: Path) -> None:
    library = _library("affine", tmp_path)
    with load(library, cache_bytes=LEAST) as module:
        wrong: list[int] = []

        def work(seed: int) -> None:
            for n in range(300):
                x = np.full((2, 3), (n + seed) % 50, np.float32)
                if not np.array_equal(module(x)["y"], x * 2 + 1):
                    wrong.append(n)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert sum(_hits(module)) == 900
