"""What can be looked at of device code: functions in Triton's language, PTX, and cubins."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping, Sequence

from ...compiler.target import GpuTarget
from .compiling import FunctionJob, Image, compile_all
from .emit.function import Function
from .emit.preamble import with_preamble

FORMS = ("ptx", "cubin", "triton")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of files in an archive, the first that it can tell


def device_forms(
    functions: Sequence[Function],
    images: Mapping[str, Sequence[Image]],
    target: GpuTarget,
    wanted: Collection[str],
) -> tuple[dict[str, str], dict[str, bytes]]:
    """The wanted ones of `FORMS`, by name: texts, and archives.

    triton: one module of all functions. ptx: of each function, one behind the other, for the
    target's PTX or else its first architecture. cubin: a zip archive of a file for each function
    and architecture. Raises InternalError where Triton fails.
    """
    texts = {}
    if "triton" in wanted:
        texts["triton"] = _module(functions)
    if "ptx" in wanted:
        texts["ptx"] = _ptx(functions, target.ptx or target.architectures[0])
    return texts, {"cubin": _archive(functions, images)} if "cubin" in wanted else {}


def _module(functions: Sequence[Function]) -> str:
    own = [function.source[function.source.rindex("@triton.jit") :] for function in functions]
    return with_preamble("\n\n".join(own))


def _ptx(functions: Sequence[Function], architecture: int) -> str:
    jobs = [
        FunctionJob(function, architecture, ptx=True)
        for function in functions
        if architecture in function.architectures
    ]
    return "\n".join(
        f"// ---- {image.symbol}, sm_{architecture} ----\n{image.data.decode()}"
        for image in compile_all(jobs)
    )


def _archive(functions: Sequence[Function], images: Mapping[str, Sequence[Image]]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for function in functions:
            for image in images[function.symbol]:
                if not image.ptx:
                    name = f"sm_{image.architecture}/{image.symbol}.cubin"
                    archive.writestr(zipfile.ZipInfo(name, _EPOCH), image.data)
    return held.getvalue()
