"""What Tensmith is compared with on a GPU: torch, as it runs, captures, compiles and exports."""

from __future__ import annotations

import tempfile
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


def seconds_of(torch: Any, call: Call) -> float:
    """Median over rounds of the seconds of a call, by events of the GPU."""
    for _ in range(WARM_CALLS):
        call()
    found = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(CALLS):
            call()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / CALLS / 1e3)
    return float(np.median(found))


def tensors(torch: Any, folder: Path, file: str) -> dict[str, Any]:
    """The arrays of a file on the GPU."""
    found = arrays_of(folder, file)
    return {name: torch.from_numpy(array).cuda() for name, array in found.items()}


def peer_call(torch: Any, folder: Path, build: GpuBuild, peer: str) -> Call:
    """A call of the peer on the build's inputs; its preparations are behind it."""
    torch.backends.cuda.matmul.allow_tf32 = build.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = build.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    if build.kind != "model":
        return _operator(torch, folder, build)
    module, feed = _network(torch, build)
    if peer == "compiled":
        module = torch.compile(module, mode="max-autotune")
    elif peer == "inductor":
        module = _packaged(torch, module, feed)

    def call() -> Any:
        with torch.no_grad():
            return module(**feed)

    return _captured(torch, call) if peer == "eager" else call


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


def _captured(torch: Any, call: Call) -> Call:
    """The call as a CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


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
        return _captured(torch, lambda: function(feed["q"], feed["k"], feed["v"]))
    x = feed["x"]
    if build.kind == "chain":
        return _captured(torch, partial(_chain, torch, x, build.sizes[0]))
    if build.kind == "gemm":
        _, n, k = build.sizes
        weights = torch.randn(k, n, device="cuda", dtype=x.dtype)
        return _captured(torch, lambda: x @ weights)
    _, channels, _, outputs, taps = build.sizes
    shape = outputs, channels, taps, taps
    filters = torch.randn(shape, device="cuda", dtype=x.dtype)
    last = torch.channels_last
    x, filters = x.to(memory_format=last), filters.to(memory_format=last)
    convolve = torch.nn.functional.conv2d
    return _captured(torch, lambda: convolve(x, filters, padding=taps // 2))
