#!/usr/bin/env bash
# Measures each function of x alone on a GPU: every number of 16 bits, and of float32 as many chunks of 2^24 numbers as
# there is time for; 256 chunks are all. Cores that are free meanwhile try random programs and changes of the code.
# Writes inputs_cuda.json, programs_SEED.json and code_SEED.json, records for tests/prove/records/.
#   bash benchmarks/prove_gpu.sh RECORD_FOLDER [SECONDS, 290 where it is not given] [SEED]
# It ends 90 seconds after SECONDS at the latest. CORES=0 leaves the free cores alone. BEFORE=RECORD goes on with a run
# that could not take all float32 numbers of each function.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: prove_gpu.sh RECORD_FOLDER [SECONDS] [SEED]}
seconds=${2:-290} seed=${3:-600000}
source benchmarks/carried.sh
mkdir -p "$out"
export PYTHONPATH=$PWD/tests:$PYTHONPATH
free=${CORES:-$((cores / 4))}
if [ "$free" -gt 0 ]; then
  # Building comes first: the others are nice.
  CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive nice -n 19 timeout -k 5 -s INT $((seconds + 80)) python3 \
    tests/run_random_programs.py --seed "$seed" --count 600 --together 12 --quick --processes "$free" \
    --seconds $((seconds - 70)) --record "$out/programs_$seed.json" > "$out/programs_$seed.txt" 2>&1 &
  CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive nice -n 19 timeout -k 5 -s INT $((seconds + 80)) python3 \
    -m prove code --seed "$seed" --count 200 --processes "$((free + 1))" --seconds "$((seconds + 60))" --hangs 240 \
    --record "$out/code_$seed.json" --areas forms passes atoms calculus > "$out/code_$seed.txt" 2>&1 &
fi
OMP_NUM_THREADS=2 timeout -s INT $((seconds + 70)) python3 -m prove inputs --device cuda --processes 8 \
  --seconds "$seconds" ${BEFORE:+--before "$BEFORE"} --record "$out/inputs_cuda.json" > "$out/inputs_cuda.txt" 2>&1
echo "prove inputs: exit $? after $SECONDS s"
grep -c . "$out/inputs_cuda.txt"
grep -E -A8 'WRONG|STOPPED' "$out/inputs_cuda.txt" | cut -c1-300 | head -40
tail -6 "$out/inputs_cuda.txt" | cut -c1-300
wait
echo "all: after $SECONDS s"
for file in "$out"/programs_*.txt "$out"/code_*.txt; do [ ! -f "$file" ] || tail -n 2 "$file" | cut -c1-300; done
