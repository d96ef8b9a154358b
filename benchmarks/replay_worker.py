"""One side of `replay.py`: compiles what it is told with the Tensmith that it imports.

Each line on standard input is a JSON object {"model", "target", "threads", "level", "asm"}; each
answer a line: {"code", "weights"} (SHA-256 of the objects and of the packed constants; with "asm"
also "functions", the assembly of every function by its symbol) or {"error": the message}.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

_LABEL = re.compile(r"^([A-Za-z_][\w.$]*):")


def functions_of(assembly: str) -> dict[str, str]:
    """The text of each function (or constant) of an assembly listing, by symbol."""
    found: dict[str, list[str]] = {}
    symbol = ""
    for line in assembly.splitlines():
        label = _LABEL.match(line)
        if label:
            symbol = label.group(1)
        if not line.lstrip().startswith((".file", ".ident")):
            found.setdefault(symbol, []).append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


def replay(job: dict[str, Any]) -> dict[str, Any]:
    """What came of one job."""
    import tensmith

    wanted = Path(os.environ["PYTHONPATH"]).resolve() / "tensmith"
    if wanted.resolve() not in Path(tensmith.__file__).resolve().parents:
        raise RuntimeError(f"imported {tensmith.__file__} instead of the tree's")
    texts = ("asm",) if job["asm"] else ()
    try:
        artifact = tensmith.compile(
            job["model"], target=job["target"], threads=job["threads"],
            opt_level=job["level"], name="replayed", texts=texts,
        )  # fmt: skip
    except tensmith.TensmithError as error:
        return {"error": str(error)}
    code = hashlib.sha256()
    for stem, data in artifact.code.objects:
        code.update(stem.encode() + data)
    with artifact.weights.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    answer: dict[str, Any] = {"code": code.hexdigest(), "weights": weights}
    if job["asm"]:
        answer["functions"] = functions_of(artifact.code.texts["asm"])
    return answer


def main() -> None:
    """Answer until standard input ends."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(replay(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
