#!/usr/bin/env bash
# Plans for the digits: which binary, on which of two machines, serves two million images a second for the
# least. The prices are made up. Results are in the folder that is given, or ./digits-plan.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-digits-plan}
mkdir -p "$out"
"${PYTHON:-python3}" - "$here/digits_test.npz" "$out" <<'END'
import sys
import numpy as np

with np.load(sys.argv[1]) as held:
    images, labels = (held["images"] / np.float32(16)).astype(np.float32), held["labels"]
np.savez(f"{sys.argv[2]}/calibration.npz", image=images[:64])
np.savez(f"{sys.argv[2]}/eval.npz", image=images[64:], labels=labels[64:].astype(np.int64))
END
cat >"$out/prices.csv" <<'END'
name,region,cpu,vcpus,threads_per_core,memory_gib,price_per_hour,currency,purchase,source,date
two,north,AMD EPYC,2,1,8,0.08,USD,ondemand,made up,2026-11-01
eight,north,AMD EPYC,16,2,32,0.60,USD,ondemand,made up,2026-11-01
END
"${PYTHON:-python3}" -m tensmith plan "$here/digits.onnx" --candidate "$here/digits_small.onnx" \
  --eval "$out/eval.npz" --calibration "$out/calibration.npz" --max-accuracy-drop 0.5% \
  --latency-p99 2ms --load 2000000/s --prices "$out/prices.csv" -o "$out"
