#!/usr/bin/env bash
# Builds the specs, compiles every torch.compile variant in parallel, then measures them one by one.
#   bash benchmarks/gpu_bench.sh RECORD_FOLDER [options of `fusegen bench`]
# Goes on where RECORD_FOLDER/h200.json left off, if --resume is given.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: gpu_bench.sh RECORD_FOLDER [options]}
shift
source benchmarks/carried.sh
export TORCHINDUCTOR_COMPILE_THREADS=1
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor COLUMNS=200
[ -n "$packed" ] || python3 -m fusegen build specs --backend cuda 2>&1 | tail -14
started=$SECONDS
for n in $(seq 15); do
  timeout 330 python3 -m fusegen bench --device cuda --warm --shard "$n/15" "$@" > "/tmp/warm$n.txt" 2>&1 &
done
wait
echo "warmed in $((SECONDS - started)) s"; tail -qn 1 /tmp/warm*.txt | cut -c1-150 | sort | uniq -c | head
timeout "${FUSEGEN_BENCH_SECONDS:-250}" python3 -m fusegen bench --device cuda --output "$out/h200.json" "$@" > "$out/bench.txt" 2>&1
echo "bench: exit $?"; tail -12 "$out/bench.txt"
