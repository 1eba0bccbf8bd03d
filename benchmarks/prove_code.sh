#!/usr/bin/env bash
# Changes fusegen's own code at random and counts the changes that its tests find, with as many trees side by side as
# there are cores. Writes code_SEED.json, a record for tests/prove/records/, of the changes that began within six tenths
# of the time. Areas are those of tests/prove/code_areas.yaml; all but gpu_forms run without a GPU.
#   bash benchmarks/prove_code.sh RECORD_FOLDER SEED COUNT SECONDS [AREA…]
set -uo pipefail
cd "$(dirname "$0")/.."
usage="usage: prove_code.sh RECORD_FOLDER SEED COUNT SECONDS [AREA…]"
out=${1:?$usage} seed=${2:?$usage} count=${3:?$usage} seconds=${4:?$usage}
shift 4
source benchmarks/carried.sh
mkdir -p "$out"
export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive PYTHONPATH=$PWD/tests:$PYTHONPATH
case " $* " in *" gpu"*) ;; *) export CUDA_VISIBLE_DEVICES= ;; esac
timeout -s INT $((seconds + 30)) python3 -m prove code --seed "$seed" --count "$count" --processes "$cores" \
  --seconds "$seconds" --hangs 240 --record "$out/code_$seed.json" --areas "$@" > "$out/code_$seed.txt" 2>&1
echo "prove code: exit $? after $SECONDS s"
grep -E -A2 '^[0-9]+: seed [0-9]+ survived' "$out/code_$seed.txt" | cut -c1-200
tail -3 "$out/code_$seed.txt" | cut -c1-400
