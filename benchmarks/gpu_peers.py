"""What Tensmith is compared with on a GPU: torch, as it runs, captures, compiles and exports."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .gpu_index import GpuBuild, arrays_of

Call = Callable[[], Any]
PEERS = ("eager", "compiled", "inductor")
WARM_CALLS, CALLS, ROUNDS = 10, 50, 5


def torch_or_reason() -> tuple[Any, str]:
    """torch with a GPU, or why there is none."""
    try:
        import torch
    except ImportError:
        return None, "torch is not installed"
    if not torch.cuda.is_available():
        return None, "torch finds no GPU"
    return torch, ""


def seconds_of(torch: Any, call: Call) -> dict[str, float]:
    """Medians over rounds: `seconds` of a call, by events of the GPU; `issue_s`, after which a call
    comes back: where that is as long, the processor is what is measured."""
    for _ in range(WARM_CALLS):
        call()
    found, issued = [], []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        issued.append((time.perf_counter() - began) / CALLS)
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / CALLS / 1e3)
    return {"seconds": float(np.median(found)), "issue_s": float(np.median(issued))}


def tensors(torch: Any, folder: Path, file: str) -> dict[str, Any]:
    """The arrays of a file on the GPU."""
    found = arrays_of(folder, file)
    return {name: torch.from_numpy(array).cuda() for name, array in found.items()}


def peer_call(torch: Any, folder: Path, build: GpuBuild, peer: str) -> tuple[Call, dict[str, Any]]:
    """A call of the peer on the build's inputs, and what there is to tell of it; its preparations
    are behind it. Raises ImportError where a package that the peer needs is missing."""
    torch.backends.cuda.matmul.allow_tf32 = build.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = build.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    if build.kind != "model":
        return _captured(torch, _operator(torch, folder, build))
    module, feed = _network(torch, build)
    if peer == "compiled":
        torch._dynamo.reset()  # else it gives up after some compilations of one function
        module = torch.compile(module, mode="max-autotune", dynamic=False)
    elif peer == "inductor":
        module = _packaged(torch, module, feed)

    def call() -> Any:
        with torch.no_grad():
            return module(**feed)

    return _captured(torch, call) if peer == "eager" else (call, {})


def _network(torch: Any, build: GpuBuild) -> tuple[Any, dict[str, Any]]:
    """The network on the GPU, with weights of its own, and its inputs; pictures lie as cuDNN
    prefers them."""
    from .zoo import build as build_network

    spec, half = build_network(build.model), build.precision == "fp16"
    module = spec.module.cuda()
    for part in module.modules():
        if hasattr(part, "set_attn_implementation"):
            part.set_attn_implementation("sdpa")
    if half:
        module = module.half()
    feed = _moved(torch, spec.example, build.batch, half)
    if any(getattr(value, "ndim", 0) == 4 for value in feed.values()) and len(feed) == 1:
        module = module.to(memory_format=torch.channels_last)
        feed = {key: x.contiguous(memory_format=torch.channels_last) for key, x in feed.items()}
    return module, feed


def _moved(torch: Any, value: Any, batch: int, half: bool) -> Any:
    if isinstance(value, dict):
        return {key: _moved(torch, item, batch, half) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(torch, item, batch, half) for item in value)
    moved = value.cuda().repeat(batch, *[1] * (value.dim() - 1))
    return moved.half() if half and moved.is_floating_point() else moved


def _captured(torch: Any, call: Call) -> tuple[Call, dict[str, Any]]:
    """The call as a CUDA graph; as it is, and why, where it cannot be captured."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError as error:
        torch.cuda.synchronize()
        return call, {"graph": False, "why": str(error)}
    return graph.replay, {"graph": True}


def _packaged(torch: Any, module: Any, feed: dict[str, Any]) -> Any:
    """The module compiled ahead of time and loaded again."""
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    program = torch.export.export(module, (), kwargs=feed)
    path = str(Path(tempfile.mkdtemp(prefix="tensmith-peer-"), "model.pt2"))
    return aoti_load_package(aoti_compile_and_package(program, package_path=path))


def _chain(torch: Any, x: Any, launches: int) -> Any:
    width = x.shape[1]
    weights = torch.ones(width, width, device="cuda", dtype=x.dtype)
    for _ in range(launches):
        x = x @ weights
    return x


def _operator(torch: Any, folder: Path, build: GpuBuild) -> Call:
    """cuBLAS, cuDNN, or torch's attention."""
    feed = tensors(torch, folder, build.inputs)
    if build.kind == "attention":
        function = torch.nn.functional.scaled_dot_product_attention
        return lambda: function(feed["q"], feed["k"], feed["v"])
    x = feed["x"]
    if build.kind == "chain":
        return partial(_chain, torch, x, build.sizes[0])
    if build.kind == "gemm":
        _, n, k = build.sizes
        weights = torch.randn(k, n, device="cuda", dtype=x.dtype)
        return lambda: x @ weights
    _, channels, _, outputs, taps = build.sizes
    shape = outputs, channels, taps, taps
    filters = torch.randn(shape, device="cuda", dtype=x.dtype)
    last = torch.channels_last
    x, filters = x.to(memory_format=last), filters.to(memory_format=last)
    convolve = torch.nn.functional.conv2d
    return lambda: convolve(x, filters, padding=taps // 2)
