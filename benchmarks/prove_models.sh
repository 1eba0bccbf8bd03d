#!/usr/bin/env bash
# Holds random models, fused, against eager on all cores, without a GPU, and writes models_SEED.json, a record for
# tests/prove/records/: of as many as there was time for.
#   bash benchmarks/prove_models.sh RECORD_FOLDER SEED COUNT SECONDS
set -uo pipefail
cd "$(dirname "$0")/.."
usage="usage: prove_models.sh RECORD_FOLDER SEED COUNT SECONDS"
out=${1:?$usage} seed=${2:?$usage} count=${3:?$usage} seconds=${4:?$usage}
source benchmarks/carried.sh
mkdir -p "$out"
export CUDA_VISIBLE_DEVICES= OMP_WAIT_POLICY=passive PYTHONPATH=$PWD/tests:$PYTHONPATH
# What runs when the time is over is still finished, which takes a minute.
timeout -s INT "$seconds" python3 -m prove models --seed "$seed" --count "$count" --processes "$cores" \
  --seconds $((seconds - 90)) --record "$out/models_$seed.json" > "$out/models_$seed.txt" 2>&1
echo "random models: exit $? after $SECONDS s"
tail -5 "$out/models_$seed.txt" | cut -c1-400
