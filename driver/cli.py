"""The command line. Commands are in `commands/`, one file each; heavy imports wait until needed."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

from .._version import __version__
from ..compiler.errors import ModelWarning, TensmithError, UsageError, system_refusal
from ..compiler.knobs import TRACEBACK
from .commands import (
    bench,
    cascade,
    check,
    compile,
    inspect,
    knobs,
    plan,
    quantize,
    records,
    reduce,
    run,
    targets,
    tune,
    verify,
)
from .console import Told

INTERRUPTED = 130

app = typer.Typer(
    name="tensmith",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile ONNX models to standalone binaries.\n\n"
    "Exit codes: 0 done, 1 internal error, 2 usage or malformed model, 3 model or operator not "
    "supported on the target, 4 verification failed, 5 budget not met, 130 interrupted.",
)

for _module in (
    compile,
    tune,
    plan,
    cascade,
    quantize,
    run,
    bench,
    verify,
    check,
    inspect,
    reduce,
    targets,
    knobs,
):
    app.command(_module.__name__.rpartition(".")[2])(_module.command)
app.add_typer(records.app, name="records")


def _show_version(value: bool) -> None:
    if value:
        print(f"tensmith {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """On stderr, without the place in Tensmith's own code."""
    print(f"warning: {message}", file=file or sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are told on stderr, and on stdout as
    `{"error": ...}` when `--json` was given."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", ModelWarning)
            warnings.showwarning = _show_warning
            result = app(words, prog_name="tensmith", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED and not isinstance(result, Told):
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except TensmithError as error:
        return _report(error, f"error: {error}", error.exit_code, words)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _report(error, "interrupted", INTERRUPTED, words)
    except BrokenPipeError:
        _give_up_output()
        sys.stderr.close()  # the reader went away: nothing is left to say, nor anybody to say it to
        return 1
    except MemoryError as error:
        text = "error: there is not enough memory\n  remedy: end other programs, or raise the limit"
        return _report(error, text, UsageError.exit_code, words)
    except OSError as error:
        _give_up_output()
        refusal = system_refusal(error)
        if refusal is None:
            return _unexpected(error, words)
        return _report(refusal, f"error: {refusal}", refusal.exit_code, words)
    except Exception as error:
        return _unexpected(error, words)


def _open_streams() -> None:
    """Give programs without standard streams empty ones; names of files that are no text in the
    terminal's encoding are printed with escapes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and mode == "w":
            stream.reconfigure(errors="backslashreplace")


def _give_up_output() -> None:
    """Let go what standard output does not take: the interpreter would write it again at its end,
    and say so with an exit code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _unexpected(error: Exception, words: Sequence[str]) -> int:
    show = getattr(error, "show", None)  # the parser's own errors; their class has moved about
    if show is not None and hasattr(error, "exit_code"):
        show()
        _print_error(error, int(error.exit_code), words)
        return int(error.exit_code)
    if TRACEBACK.value:
        traceback.print_exception(error)
    text = f"internal error: {type(error).__name__}: {error}"
    hint = f"\n  {TRACEBACK.variable}=1 shows where; please report this"
    return _report(error, text + hint, 1, words)


def _report(error: BaseException, text: str, code: int, words: Sequence[str]) -> int:
    print(text, file=sys.stderr)
    _print_error(error, code, words)
    return code


def _print_error(error: BaseException, code: int, words: Sequence[str]) -> None:
    if "--json" in words:
        from .console import error_object

        print(json.dumps({"error": {**error_object(error), "exit_code": code}}))
