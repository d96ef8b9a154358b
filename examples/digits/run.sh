#!/usr/bin/env bash
# Sets Tensmith up in .venv, then compiles, runs and compares the digits network.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
"$root/.ci/setup" example
exec "$root/.venv/bin/python" "$root/examples/digits/run.py"
