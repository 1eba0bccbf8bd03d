#!/usr/bin/env bash
# Holds random programs against torch on all cores, without a GPU, and writes programs_SEED.json, a record for
# tests/prove/records/: of as many as there was time for. They are compiled with -O1, and each for float64 and one of
# float32 and bfloat16, in half of the time.
#   bash benchmarks/prove_programs.sh RECORD_FOLDER SEED COUNT SECONDS
set -uo pipefail
cd "$(dirname "$0")/.."
usage="usage: prove_programs.sh RECORD_FOLDER SEED COUNT SECONDS"
out=${1:?$usage} seed=${2:?$usage} count=${3:?$usage} seconds=${4:?$usage}
source benchmarks/carried.sh
mkdir -p "$out"
export CUDA_VISIBLE_DEVICES= OMP_WAIT_POLICY=passive PYTHONPATH=$PWD/tests:$PYTHONPATH
# What runs when the time is over is still finished, which takes a minute.
timeout -s INT "$seconds" python3 tests/run_random_programs.py --seed "$seed" --count "$count" --together 12 --quick \
  --processes "$cores" --seconds $((seconds - 100)) --record "$out/programs_$seed.json" > "$out/programs_$seed.txt" 2>&1
echo "random programs: exit $? after $SECONDS s"
tail -5 "$out/programs_$seed.txt" | cut -c1-400
