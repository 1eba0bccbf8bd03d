#!/usr/bin/env bash
# Builds the specs and runs them on two GPUs with NCCL; writes the record that benchmarks/ keeps.
#   bash benchmarks/gpu_multi.sh RECORD.json
# Where packages are missing and there is no network, put wheels into .whl/ first.
set -euo pipefail
cd "$(dirname "$0")/.."
record=${1:?usage: gpu_multi.sh RECORD.json}
source benchmarks/carried.sh
export NCCL_NVLS_ENABLE=0
python3 -m fusegen build specs --backend cuda 2>&1 | tail -15
timeout 300 python3 -m benchmarks.multi_gpu "$record" --backend nccl
