"""The request: checked when it is made, carried whole by every command, read back elsewhere."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

import tensmith
from tensmith.compiler.errors import UsageError
from tensmith.driver import api
from tensmith.driver.argument_checks import MOST_THREADS
from tensmith.driver.request import CompileRequest
from tensmith.driver.trial import ModelTrial

OPTIONS = ("--target", "x86-64-v3", "-O", "1", "--threads", "3", "--shape", "x:2x4")
DRIVER = Path(tensmith.__file__).parent / "driver"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "int3"}, "precision 'int3' is not supported"),
        ({"opt_level": 4}, "opt_level 4"),
        ({"target": None}, "the target is None"),
        ({"threads": 0}, "0 threads"),
        ({"threads": 1025}, "1025 threads: a run has 1024 at most"),
        ({"name": "a-b"}, "'a-b' cannot name the C function"),
        ({"texts": frozenset({"llvm", "poem"})}, "texts 'poem'"),
    ],
)
def test_wrong_values_are_refused_when_it_is_made(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompileRequest(**values)


def test_the_runtime_has_the_same_limit_of_threads() -> None:
    header = (DRIVER.parent / "runtime" / "internal.h").read_text(encoding="utf-8")
    assert re.findall(r"\bMAX_THREADS = (\d+)", header) == [str(MOST_THREADS)]


def test_the_target_is_looked_up_when_it_is_needed() -> None:
    request = CompileRequest(target="pdp-11")
    with pytest.raises(UsageError, match="unknown target 'pdp-11'"):
        request.resolve()


@pytest.mark.parametrize(
    ("text", "name"), [("x86_64", "x86-64-v4"), ("Native", "native"), ("cortex_m4f", "cortex-m4")]
)
def test_a_target_that_is_nearly_right_is_named(text: str, name: str) -> None:
    with pytest.raises(UsageError) as raised:
        CompileRequest(target=text).resolve()
    assert raised.value.remedy.startswith(f"write {name}, if")


def test_it_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        CompileRequest().threads = 2


def test_another_process_reads_it_back() -> None:
    request = CompileRequest(
        target="aarch64",
        opt_level=3,
        threads=2,
        shapes={"x": (1, "n", "1..8"), "y": ()},
        choices=Path("some.json"),
    )
    task = ModelTrial("m.onnx", "x.npz", request, seconds=2.5)
    assert ModelTrial.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_options_of_a_compilation(tmp_path: Path) -> None:
    request = CompileRequest(target="aarch64", opt_level=3, threads=2, texts=frozenset({"asm"}))
    options = request.options(Path("some model.onnx"), tmp_path, request.resolve()[1])
    assert (options.name, options.work_dir) == ("some_model", tmp_path)
    assert (options.opt_level, options.threads, options.precision) == (3, 2, "fp32")
    assert options.texts == {"asm"}
    assert not options.choices.by_key


def test_choices_are_those_of_the_target(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    choices = {"version": 1, "target": "x86-64-v4", "threads": 1, "choices": {"k": {}}}
    path.write_text(json.dumps(choices))
    request = CompileRequest(target="x86-64-v4", choices=path)
    target = request.resolve()[1]
    assert request.options(Path("m.onnx"), tmp_path, target).choices.by_key == {"k": {}}
    other = CompileRequest(target="x86-64-v4", threads=2, choices=path)
    with pytest.raises(UsageError, match="is for 'x86-64-v4' and 1 thread"):
        other.options(Path("m.onnx"), tmp_path, target)


@pytest.mark.parametrize(
    "command",
    [
        ("compile", "--no-verify", "-o", "m.so"),
        ("run", "--input", "x.npz"),
        ("bench",),
        ("verify",),
        ("inspect", "--kernels"),
        ("inspect", "--roofline"),
    ],
    ids=" ".join,
)
def test_every_command_asks_for_what_its_options_say(
    command: tuple[str, ...], model_path: Path, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[CompileRequest] = []

    def resolve(self: CompileRequest) -> None:
        seen.append(self)
        raise UsageError("that is enough")

    monkeypatch.setattr(CompileRequest, "resolve", resolve)
    np.savez("x.npz", x=np.ones((2, 4), np.float32))
    code, _, err = call(command[0], model_path, *command[1:], *OPTIONS)
    assert (code, "that is enough" in err) == (2, True)
    (found,) = seen
    assert (found.target, found.opt_level, found.threads) == ("x86-64-v3", 1, 3)
    assert dict(found.shapes) == {"x": (2, 4)}
    assert found.progress is not None


def test_python_keywords_are_its_fields(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CompileRequest] = []

    def resolve(self: CompileRequest) -> None:
        seen.append(self)
        raise UsageError("that is enough")

    monkeypatch.setattr(CompileRequest, "resolve", resolve)
    with pytest.raises(UsageError, match="that is enough"):
        api.compile(
            model_path, target="aarch64", opt_level=3, threads=2, shapes={"x": "2x4"}, name="m",
            texts=["asm"], folder="here", work_dir="there", choices="c.json",
        )  # fmt: skip
    assert seen == [
        CompileRequest(
            target="aarch64", opt_level=3, threads=2, shapes={"x": (2, 4)}, name="m",
            texts=frozenset({"asm"}), folder=Path("here"), work_dir=Path("there"),
            choices=Path("c.json"),
        )
    ]  # fmt: skip


def test_no_function_carries_its_fields_one_by_one() -> None:
    """But for the Python interface and the options of commands."""
    carriers = []
    for path in (p for p in DRIVER.rglob("*.py") if p.parent.name != "commands"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = {a.arg for a in (*node.args.args, *node.args.kwonlyargs)}
                if len(names & {"target", "opt_level", "threads", "shapes", "precision"}) > 1:
                    carriers.append(f"{path.name}:{node.name}")
    assert sorted(carriers) == ["api.py:compile", "layer_checks.py:layers"]


@pytest.mark.parametrize(("given", "found"), [(None, "1%"), (0, 0), (0.0, 0.0), ("0%", "0%")])
def test_a_budget_of_nothing_is_one(given: str | float | None, found: str | float) -> None:
    request = CompileRequest(precision="auto", eval={}, max_accuracy_drop=given)
    assert request.accuracy_drop == found
