"""A process that holds Triton's compiler: `python -m tensmith.backends.cuda.worker`.

Requests and answers are single lines of JSON on stdin and stdout, code lies in files of a folder.
The compiler may crash, hang or ask for any amount of memory: it takes this process only.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

MEMORY_LIMIT = 16 << 30  # bytes of addresses; compilations take far less


def compile_function(request: dict[str, Any]) -> dict[str, Any]:
    """Compile one function; cubin and PTX go to files beside its source."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    _name_by_version(triton.__version__)
    path = Path(request["source"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, request["symbol"])
    names = function.arg_names
    aligned = [["tt.divisibility", 16]]
    source = ASTSource(
        fn=function,
        signature=dict(zip(names, request["signature"], strict=True)),
        constexprs={},
        attrs={(n,): aligned for n, is_aligned in enumerate(request["aligned"]) if is_aligned},
    )
    options = {
        "num_warps": request["warps"],
        "num_stages": request["stages"],
        "enable_fp_fusion": not request["exact"],
    }
    if request["early"]:
        options["launch_pdl"] = True
    if request["ptx_version"]:
        options["ptx_version"] = request["ptx_version"]
    target = GPUTarget("cuda", request["architecture"], 32)
    compiled = triton.compile(source, target=target, options=options)
    path.with_suffix(".cubin").write_bytes(compiled.asm["cubin"])
    path.with_suffix(".ptx").write_text(compiled.asm["ptx"], encoding="utf-8")
    found = compiled.metadata
    return {
        "name": found.name,
        "shared": found.shared,
        "warps": found.num_warps,
        "scratch": found.global_scratch_size + found.profile_scratch_size,
        "clusters": found.num_ctas,
    }


def _name_by_version(version: str) -> None:
    """Have Triton tell itself from others in the keys of its cache by its version.

    It reads and hashes all of its libraries, which takes longer than a kernel (measured: 0.3 s in
    each process); the cache is this process's own.
    """
    cache: Any = importlib.import_module("triton.runtime.cache")
    cache.triton_key = lambda: version


def main() -> None:
    """Answer requests until stdin ends; an error is an answer too."""
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the compiler prints
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        try:
            answer = compile_function(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            sink.write(json.dumps(answer) + "\n")
            sink.flush()


if __name__ == "__main__":
    main()
