#!/usr/bin/env bash
# Random cells on a GPU: draws them from a seed, builds their packages while torch.compile's variants are compiled in
# parallel, then checks each against float64 and times it. Ends within ten minutes, with the cells that it has by then.
#   bash benchmarks/random.sh RECORD_FOLDER SEED [CELLS [all|build|measure [options of `fusegen bench`]]]
# build and measure are the two halves of all, each in a call of its own, for more cells; they share folders in /tmp.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: random.sh RECORD_FOLDER SEED [CELLS [all|build|measure [options]]]}
seed=${2:?usage: random.sh RECORD_FOLDER SEED [CELLS [all|build|measure [options]]]}
cells=${3:-150} mode=${4:-all}
shift $(($# < 4 ? $# : 4))
source benchmarks/carried.sh
export TORCHINDUCTOR_COMPILE_THREADS=1 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
bench=(python3 -m fusegen bench --random "$seed" --cells "$cells" --out "/tmp/fusegen_random_$seed" "$@")
most=${FUSEGEN_BENCH_SECONDS:-540}
mkdir -p "$out"
if [ "$mode" != measure ]; then
  timeout "$most" "${bench[@]}" --build-only > "$out/random_build.txt" 2>&1 &
  building=$!
  shards=$((cores < 14 ? cores : 14))
  for n in $(seq "$shards"); do
    timeout "$most" nice "${bench[@]}" --warm --shard "$n/$shards" --seconds $((most - 60)) > "/tmp/warm$n.txt" 2>&1 &
  done
  wait "$building"
  echo "build: exit $? after $SECONDS s"; tail -3 "$out/random_build.txt" | cut -c1-150
  wait
  echo "warmed after $SECONDS s"; grep -hv ': compiled$' /tmp/warm*.txt | cut -c1-200 | head -20
fi
if [ "$mode" != build ]; then
  "${bench[@]}" --seconds $((most - SECONDS)) --output "$out/random.json" > "$out/random.txt" 2> "$out/random_log.txt"
  echo "bench: exit $? after $SECONDS s"; tail -2 "$out/random_log.txt" | cut -c1-200
  sed -e 's/[[:space:]]*$//' -e 's/│/|/g' -e 's/┃/|/g' -e '/━/d' -e '/─/d' "$out/random.txt" > /tmp/random_plain.txt
  sed '/^by form/,$d' /tmp/random_plain.txt | head -30 | cut -c1-200; grep -A99 '^by form' /tmp/random_plain.txt
fi
