#!/usr/bin/env bash
# The blocks of examples/ on a GPU, fused, beside eager and torch.compile: compiles what they need in parallel, then
# checks and times each. Ends within ten minutes.
#   bash benchmarks/fused_models.sh RECORD_FOLDER [all|build|measure [NAME …]]
# build and measure are the two halves of all, each in a call of its own; they share folders in /tmp.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: fused_models.sh RECORD_FOLDER [all|build|measure [NAME …]]}
mode=${2:-all}
shift $(($# < 2 ? $# : 2))
source benchmarks/carried.sh
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
folder=/tmp/fusegen_blocks most=${FUSEGEN_BENCH_SECONDS:-570}
mkdir -p "$out"; rm -f /tmp/warm_blocks*.txt
if [ "$mode" != measure ]; then
  shards=$(($# ? $# : 15))
  for n in $(seq "$shards"); do
    TORCHINDUCTOR_COMPILE_THREADS=1 MAX_JOBS=4 timeout $((most - 60)) \
      python3 benchmarks/fused_models.py warm "$folder" --shard "$n/$shards" "$@" > "/tmp/warm_blocks$n.txt" 2>&1 &
  done
  wait
  echo "compiled after $SECONDS s"; cat /tmp/warm_blocks*.txt | grep -E 'Error|fails|compiled in' | cut -c1-300
fi
if [ "$mode" != build ]; then
  timeout $((most - SECONDS)) python3 benchmarks/fused_models.py measure "$folder" \
    --output "$out/fused_models.json" "$@" > "$out/fused_models.txt" 2>&1
  echo "measure: exit $? after $SECONDS s"; grep -vE '^bfloat16: ' "$out/fused_models.txt" | tail -80 | cut -c1-250
fi
