#!/usr/bin/env bash
# Whole models on a GPU, beside eager and torch.compile: builds the packages of models.yaml while torch.compile's
# variants are compiled in parallel, then checks and times each model. Ends within ten minutes.
#   bash benchmarks/models.sh RECORD_FOLDER [all|build|measure|resume [NAME …]]
# build and measure are the two halves of all, each in a call of its own; they share folders in /tmp. resume goes on
# with the record of an interrupted measure. Names choose some models; CELLS="NAME …" does so too.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: models.sh RECORD_FOLDER [all|build|measure|resume [NAME …]]}
mode=${2:-all}
shift $(($# < 2 ? $# : 2))
names=("$@" ${CELLS:-})
source benchmarks/carried.sh
export TORCHINDUCTOR_COMPILE_THREADS=1 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
folder=/tmp/fusegen_models most=${FUSEGEN_BENCH_SECONDS:-540}
mkdir -p "$out"; rm -f /tmp/warm_models*.txt
if [ "$mode" = all ] || [ "$mode" = build ]; then
  timeout "$most" python3 benchmarks/models.py build "$folder" ${names[@]+"${names[@]}"} > "$out/models_build.txt" 2>&1 &
  building=$!
  shards=$((cores < 14 ? cores : 14))
  for n in $(seq "$shards"); do
    timeout $((most - 60)) nice python3 benchmarks/models.py warm "$folder" --shard "$n/$shards" \
      ${names[@]+"${names[@]}"} > "/tmp/warm_models$n.txt" 2>&1 &
  done
  wait "$building"
  echo "build: exit $? after $SECONDS s"; tail -3 "$out/models_build.txt" | cut -c1-150
  wait
  echo "warmed after $SECONDS s: $(cat /tmp/warm_models*.txt | grep -c ': compiled$')"
  grep -hE 'Error' /tmp/warm_models*.txt | cut -c1-200 | head
fi
if [ "$mode" != build ]; then
  timeout $((most - SECONDS)) python3 benchmarks/models.py measure "$folder" --output "$out/models.json" \
    $([ "$mode" = resume ] && echo --resume) ${names[@]+"${names[@]}"} > "$out/models_log.txt" 2>&1
  echo "measure: exit $? after $SECONDS s"; grep -v '^|' "$out/models_log.txt" | tail -5 | cut -c1-200
  python3 benchmarks/models.py table "$out/models.json" | tee "$out/models.txt"
fi
