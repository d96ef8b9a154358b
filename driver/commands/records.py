"""`tensmith records`: what tuning has measured, united, exported, shown, examined, reduced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Json

if TYPE_CHECKING:
    from ...compiler.tuning.exchange import Tree
    from ...compiler.tuning.summaries import SessionSummary
    from ..console import Console

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Records of tuning (docs/tuning.md): merge, export, import, show, check, prune, report.",
)

_FILE_HELP = "A records file (default: the user's own, see `tensmith knobs`)."
File = Annotated[Path | None, typer.Argument(metavar="FILE", help=_FILE_HELP, show_default=False)]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Records files, or exported ones.")
]
Into = Annotated[
    Path | None,
    typer.Option("--records", metavar="FILE", help=_FILE_HELP, show_default=False),
]


def read(path: Path) -> Tree:
    """The records in a file of either kind. Raises UsageError for any other."""
    from ...compiler.tuning.exchange import tree_of
    from ...compiler.tuning.exchange_checks import is_exported, read_tree
    from ...compiler.tuning.merging import judged_anew
    from ...compiler.tuning.records import Records
    from ..argument_checks import check_file

    if is_exported(check_file(path, "records file")):
        return judged_anew(read_tree(path))
    with Records(path, write=False) as records:
        return tree_of(records)


def _united(files: Sequence[Path], output: Path, *, is_input: bool) -> Tree:
    """Write the records of files and, where it is an input, what `output` itself holds by then.

    It is read after nobody else may write it any more: no step of another program is lost. Raises
    UsageError where it holds sessions and is no input.
    """
    from ...compiler.errors import UsageError
    from ...compiler.tuning.exchange import replace_records, tree_of
    from ...compiler.tuning.exchange_checks import check_form
    from ...compiler.tuning.merging import merged
    from ...compiler.tuning.records import Records

    trees = [check_form(path, read(path)) for path in files]
    with Records(output) as held:
        own = check_form(output, tree_of(held))
        if own["sessions"] and not is_input:
            raise UsageError(
                f"'{output}' exists", remedy="name it among the inputs to keep its sessions"
            )
        tree = merged([own, *trees])
        replace_records(held, tree)
    return tree


@app.command("merge")
def merge(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Records file to write.")],
    json: Json = False,
) -> None:
    """Unite records files; verdicts follow from the samples of all."""
    from ..argument_checks import check_file
    from ..console import Console
    from ..tuning.places import records_to_write

    path = records_to_write(output)
    for file in files:
        check_file(file, "records file")
    others = [file for file in files if not (path.exists() and path.samefile(file))]
    tree = _united(others, path, is_input=len(others) < len(files))
    _tell(Console(json=json), output, tree)


@app.command("import")
def import_(files: Files, records: Into = None, json: Json = False) -> None:
    """Add exported records to a records file; what they claim is found anew from their samples."""
    from ..console import Console
    from ..tuning.places import records_to_write

    path = records_to_write(records)
    tree = _united(files, path, is_input=True)
    _tell(Console(json=json), path, tree)


@app.command("export")
def export(
    file: File = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON file to write (default: stdout).")
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="Confirmed gains alone, with the samples that prove them."),
    ] = False,
) -> None:
    """Write records as sorted JSON."""
    from ...compiler.scratch import written_whole
    from ...compiler.tuning.exchange import text_of
    from ...compiler.tuning.merging import best_of
    from ..tuning.places import records_file

    tree = read(records_file(file))
    text = text_of(best_of(tree) if best else tree)
    if output is None:
        print(text, end="")
        return
    with written_whole(output) as new:
        new.write_text(text, encoding="utf-8")


@app.command("show")
def show(
    file: File = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="The kernels of every session.")] = False,
    json: Json = False,
) -> None:
    """List sessions, and what they came to."""
    from ...compiler.tuning.summaries import summaries
    from ..console import Console
    from ..tuning.places import records_file

    console = Console(json=json)
    path = records_file(file)
    found = summaries(read(path))
    show_sessions(console, path, found, tasks=tasks)


def show_sessions(
    console: Console, path: Path, found: list[SessionSummary], *, tasks: bool
) -> None:
    """The tables of `records show`, which are those of `tune --status`, too."""
    from ..tuning.tables import session_row, task_rows

    console.result({"file": str(path), "sessions": [own.to_json() for own in found]})
    if not found:
        console.print(f"{path}: no session")
        return
    columns = (
        "session", "model", "target", "last", "trials", "spent", "gains", "kernels", "whole model",
        "noise",
    )  # fmt: skip
    console.table(str(path), columns, map(session_row, found), left=4)
    for own in found if tasks else ():
        names = ("kernel", "share", "base", "of it", "interval", "trials", "failed", "decisions")
        console.table(f"{own.id} {own.name}", names, task_rows(own))


@app.command("check")
def check(file: File = None, json: Json = False) -> None:
    """Examine a file: its structure, references, digests, and whether verdicts follow from samples.

    Exit code 4 where something is wrong."""
    from ...compiler.errors import VerificationError
    from ...compiler.tuning.record_checks import examine
    from ...compiler.tuning.records import Records
    from ..console import Console
    from ..tuning.places import records_file

    console = Console(json=json)
    path = records_file(file)
    with Records(path, write=False) as records:
        found = examine(records)
    console.result(
        {"file": str(path), "problems": found.problems, "notes": found.notes, **found.counts}
    )
    for line in (*found.problems, *found.notes):
        console.print(line)
    if found.problems:
        console.exit(
            VerificationError(
                f"'{path}' is not as it should be: {len(found.problems)} problem(s)",
                remedy="take a copy of before, or export what can be read and import it elsewhere",
            )
        )
    console.print(f"{path}: " + ", ".join(f"{n} {what}" for what, n in found.counts.items()))


@app.command("prune")
def prune(
    older: Annotated[
        str,
        typer.Option("--older", metavar="AGE", help="Such as 90d: sessions idle for longer go."),
    ],
    file: File = None,
    json: Json = False,
) -> None:
    """Remove the sessions in which nothing was done for long."""
    from datetime import UTC, datetime, timedelta

    from ...compiler.errors import UsageError
    from ...compiler.tuning.exchange import replace_records, tree_of
    from ...compiler.tuning.merging import pruned
    from ...compiler.tuning.records import Records
    from ..argument_checks import check_file
    from ..console import Console
    from ..durations import seconds_of
    from ..tuning.places import records_file

    path = check_file(records_file(file), "records file")
    try:
        before = datetime.now(UTC) - timedelta(seconds=seconds_of(older, needs_unit=True))
    except OverflowError:
        raise UsageError(
            f"'{older}' is longer than there are dates", remedy="write one such as 90d"
        ) from None
    with Records(path) as held:  # then nobody else writes what is read
        tree = tree_of(held)
        kept = pruned(tree, before.isoformat(timespec="seconds"))
        replace_records(held, kept)
    console = Console(json=json)
    console.print(f"{len(tree['sessions']) - len(kept['sessions'])} session(s) removed")
    _tell(console, path, kept)


@app.command("report")
def report(
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")],
    file: File = None,
) -> None:
    """Draw sessions on a page: gains, trials over time, rooflines, failures, noise, winners."""
    from ...compiler.scratch import written_whole
    from ...compiler.tuning.summaries import summaries
    from ..tuning.page import page_of
    from ..tuning.places import records_file

    path = records_file(file)
    text = page_of(path.name, summaries(read(path)))
    with written_whole(output) as new:
        new.write_text(text, encoding="utf-8")


def _tell(console: Console, path: Path, tree: Tree) -> None:
    count = {name: len(tree[name]) for name in ("sessions", "tasks", "machines")}
    console.result({"file": str(path), **count})
    console.print(f"{path}: " + ", ".join(f"{n} {what}" for what, n in count.items()))
