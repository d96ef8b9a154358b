"""Libraries whose end a download or a copy has lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.runtime.loader import load

pytestmark = needs_x86


def test_a_library_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    [file] = link(make_model("affine", tmp_path), "so", tmp_path / "whole.so", MANIFEST)
    whole = file.read_bytes()
    cut = tmp_path / "cut.so"
    script = (
        "import sys\nfrom tensmith.runtime.loader import ModuleError, load\n"
        "try:\n    load(sys.argv[1])\nexcept ModuleError as error:\n    print(error)\n"
    )
    for length in (len(whole) // 2, 200):
        cut.write_bytes(whole[:length])
        done = subprocess.run(  # what is refused too late ends the process
            [sys.executable, "-c", script, cut], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"ends after {length} of " in done.stdout
        assert "copy or download it again" in done.stdout
    cut.write_bytes(whole + b"what somebody has appended")
    load(cut).close()
