#!/usr/bin/env bash
# Row kernels where 16 bytes do not divide a row: builds a layer norm and a log-softmax, and times them (odd_rows.py).
#   bash benchmarks/odd_rows.sh RECORD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: odd_rows.sh RECORD_FOLDER}
source benchmarks/carried.sh
mkdir -p "$out"
specs="benchmarks/specs/layer_norm.yaml benchmarks/specs/log_softmax.yaml"
python3 -m fusegen build $specs --backend cuda --dtypes bfloat16,float32 --out /tmp/fusegen_odd_rows > "$out/odd_rows_build.txt"
{ echo "commit ${FUSEGEN_COMMIT:-$(git rev-parse --short HEAD)}, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader)"
  python3 benchmarks/odd_rows.py /tmp/fusegen_odd_rows; } | tee "$out/odd_rows.txt"
