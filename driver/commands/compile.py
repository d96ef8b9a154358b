"""`tensmith compile`: an ONNX file to a shared library, program, archive, object or text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import (
    LOWER_PRECISION,
    NPU,
    USUAL,
    Atol,
    Json,
    MachineOption,
    Model,
    Rtol,
    Verbose,
    VerifyTime,
    with_compilation,
)

if TYPE_CHECKING:
    from ..artifacts import Artifact
    from ..compare import Tolerance
    from ..console import Console
    from ..request import CompileRequest


_GROUPS = 12  # lines of the table of groups

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="File to write (default: MODEL's name, .so)."),
]
Emit = Annotated[
    str | None,
    typer.Option(
        "--emit",
        metavar="KIND",
        help="so, exe, lib, obj, llvm, asm, or of GPUs ptx, cubin, triton (default: by the suffix "
        "of the output).",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="C identifier of the model.")]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Compare with the reference on random inputs (default: compare where the target's "
        "hardware is, and warn when that cannot be completed; --verify makes it an error, exit "
        "code 5).",
        show_default=False,
    ),
]
DumpAfter = Annotated[
    list[str] | None,
    typer.Option(
        "--dump-after",
        metavar="PASS",
        help="Show the graph after a pass, `import` or `all`. Repeatable.",
    ),
]
DumpDir = Annotated[
    Path | None, typer.Option("--dump-dir", help="Folder for dumps (default: stderr).")
]


ChoicesFile = Annotated[
    Path | None,
    typer.Option(
        "--choices",
        metavar="FILE",
        help="Decisions about kernels to use in place of the heuristics': what `inspect --kernels "
        "--json` prints, or parts of it.",
        show_default=False,
    ),
]
RecordsFile = Annotated[
    Path | None,
    typer.Option(
        "--records",
        metavar="FILE",
        help="Take what tuning has found (docs/tuning.md): a records file, exported records, or "
        "`shipped`, those that come with Tensmith.",
        show_default=False,
    ),
]
NoStale = Annotated[
    bool,
    typer.Option("--no-stale", help="Records that do not hold any more are an error, no note."),
]


@with_compilation(*USUAL, *NPU, *LOWER_PRECISION, "allow_reordering")
def command(
    model: Model,
    output: Output = None,
    *,
    request: CompileRequest,
    emit: Emit = None,
    name: Name = None,
    verify: Verify = None,
    verify_time: VerifyTime = None,
    rtol: Rtol = None,
    atol: Atol = None,
    dump_after: DumpAfter = None,
    dump_dir: DumpDir = None,
    choices: ChoicesFile = None,
    records: RecordsFile = None,
    machine: MachineOption = "",
    no_stale: NoStale = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compile an ONNX model to a standalone binary, and check what it computes."""
    from .. import api
    from ..console import Console
    from ..dump import Dumper

    console = Console(json=json, verbose=verbose)
    output, kind, texts = destination(model, output, emit, request.target)
    dumper = Dumper(dump_after or [], dump_dir)
    with console.progress("compiling") as progress:
        request = replace(
            request, name=name or "", texts=texts, work_dir=output.parent, choices=choices,
            records=records, machine=machine, no_stale=no_stale,
            dump_after=dumper if dump_after else None, progress=progress,
        )  # fmt: skip
        artifact = api.compile_request(model, request)
        dumper.finish()
        _verify(artifact, verify, artifact.tolerance(rtol, atol), verify_time, progress)
        files = artifact.save(output, kind)
    _end(console, artifact, files, bool(verify))


def destination(
    model: Path, output: Path | None, emit: str | None, target: str
) -> tuple[Path, str, frozenset[str]]:
    """The file to write, the emit kind, and the texts that takes. Raises UsageError before anything
    is compiled."""
    from ...compiler.backend import resolve_target
    from ..argument_checks import check_choice, check_writable
    from ..emits import EMITS, SUFFIXES, emit_of
    from ..request import TEXTS

    backend, chosen = resolve_target(target)
    kinds = backend.emits(chosen)
    kind = emit or (emit_of(output) if output else kinds[0])
    check_choice("--emit", kind, EMITS)
    check_choice(f"for {chosen.name}, --emit", kind, (*kinds, *backend.texts))
    output = output or Path(f"{model.stem}{SUFFIXES[kind]}")
    check_writable(output)
    return output, kind, frozenset({kind} & set(TEXTS))


def _verify(
    artifact: Artifact,
    asked: bool | None,
    tolerance: Tolerance,
    time_limit: float | None,
    progress: Callable[[str], None],
) -> None:
    """Raise VerificationError where it fails. asked: None: where the target's hardware is."""
    if asked is False or (asked is None and artifact.is_stood_in):
        return
    report = artifact.verify(time_limit=time_limit, tolerance=tolerance, progress=progress)
    report.raise_if_failed()


def _end(console: Console, artifact: Artifact, files: list[Path], verify: bool) -> None:
    """Show the result; exit with the code of what was asked for and not met, a verification or a
    budget."""
    _show(console, artifact, files)
    error = artifact.report.error() if verify and artifact.report else None
    error = error or (artifact.budget.error() if artifact.budget else None)
    if error is not None:
        console.exit(error)


def _show_precision(console: Console, artifact: Artifact) -> None:
    from ..budget.report import rows_of
    from ..quantisation import summary_of

    if artifact.choice:
        console.print(artifact.choice.summary())
    for line in artifact.budget.summary() if artifact.budget else ():
        console.print(line)
    groups = artifact.manifest.get("budget", {}).get("groups", [])
    if groups:
        rows = rows_of(groups)
        shown = rows if console.verbose else rows[:_GROUPS]
        columns = ("products", "precision", "reason", "noise dB", "fp32 us", "int8 us")
        console.table("Groups of products", columns, shown, left=3)
        if len(shown) < len(rows):
            console.print(f"and {len(rows) - len(shown)} more (-v, --json, the manifest)")
    else:
        for line in summary_of(artifact.manifest):
            console.print(line)


def _show(console: Console, artifact: Artifact, files: list[Path]) -> None:
    from ..console import human_bytes, human_seconds
    from ..placement import show_placement
    from ..tuning.tables import tuned_text

    report = artifact.report
    memory: dict[str, Any] = artifact.manifest["memory"]
    sizes = {str(path): path.stat().st_size for path in files}
    console.result(
        {
            "files": sizes,
            "stages": artifact.stages,
            "verify": report.to_json() if report else None,
            "precision": artifact.choice.to_json() if artifact.choice else None,
            "manifest": artifact.manifest,
        }
    )
    rows = [(name, human_seconds(seconds)) for name, seconds in artifact.stages.items()]
    rows.append(("total", human_seconds(sum(artifact.stages.values()))))
    console.table("Stages", ("stage", "time"), rows)
    for path, size in sizes.items():
        console.print(f"{path}  {human_bytes(size)}")
    console.print(
        f"target {artifact.target.name}, {len(artifact.kernels)} kernels, "
        f"weights {human_bytes(memory['weight_bytes'])}, arena {_arena(memory['arena_bytes'])}"
    )
    show_placement(console, artifact.manifest)
    _show_precision(console, artifact)
    if tuned := tuned_text(artifact.manifest):
        console.print(tuned)
    if report is None:
        slowly = "its hardware is not here: --verify has an interpreter run it, slowly"
        console.print(f"not verified ({slowly if artifact.is_stood_in else '--no-verify'})")
    elif report.status == "passed" and not report.disputed:
        console.print(report.summary())
    else:
        console.log(f"warning: {report.summary()}")


def _arena(count: int | None) -> str:
    from ..console import human_bytes

    return "sized at run time" if count is None else human_bytes(count)
