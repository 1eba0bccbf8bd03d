#!/usr/bin/env bash
# Measures each function of x alone on a GPU: every number of 16 bits, and of float32 as many chunks of 2^24 numbers as
# there is time for; 256 chunks are all. Writes inputs_cuda.json, a record for tests/prove/records/.
#   bash benchmarks/prove_gpu.sh RECORD_FOLDER [SECONDS, 220 where it is not given]
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: prove_gpu.sh RECORD_FOLDER [SECONDS]}
seconds=${2:-220}
source benchmarks/carried.sh
mkdir -p "$out"
PYTHONPATH=$PWD/tests:$PYTHONPATH OMP_NUM_THREADS=2 timeout -s INT $((seconds + 70)) python3 -m prove inputs \
  --device cuda --processes 8 --seconds "$seconds" --record "$out/inputs_cuda.json" > "$out/inputs_cuda.txt" 2>&1
echo "prove inputs: exit $? after $SECONDS s"
grep -c . "$out/inputs_cuda.txt"; grep WRONG "$out/inputs_cuda.txt" | cut -c1-300; tail -12 "$out/inputs_cuda.txt" | cut -c1-300
