#!/usr/bin/env bash
# Fuses whole models on a GPU and times them beside eager and torch.compile.
#   bash benchmarks/fused_models.sh RECORD_FOLDER [NAME …]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
shift
source benchmarks/carried.sh
{
  echo "commit ${FUSEGEN_COMMIT:-$(git rev-parse --short HEAD)}, torch $(python3 -c 'import torch; print(torch.__version__)')"
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  python3 benchmarks/fused_models.py "$(mktemp -d)" "$@"
} | tee "$out/fused_models.txt"
