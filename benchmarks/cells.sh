#!/usr/bin/env bash
# Builds the chains of benchmarks/cells and times each at its shape on a GPU, kernel by kernel.
#   bash benchmarks/cells.sh RECORD_FOLDER [NAME …]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
shift
source benchmarks/carried.sh
built=$(mktemp -d)
python3 -m fusegen build benchmarks/cells --out "$built" --backend cuda --dtypes float32,bfloat16 2>&1 | tail -3
{
  echo "commit ${FUSEGEN_COMMIT:-$(git rev-parse --short HEAD)}, torch $(python3 -c 'import torch; print(torch.__version__)')"
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  PYTHONPATH=$PWD/benchmarks:$PYTHONPATH python3 benchmarks/cells.py "$built" "$@"
} | tee "$out/cells.txt"
