#!/usr/bin/env bash
# Measures ops by themselves: builds benchmarks/specs while torch.compile's variants are compiled in parallel, then
# times one after another. About two minutes on an H200.
#   bash benchmarks/vocabulary.sh RECORD_FOLDER [options of `fusegen bench`, such as --device cpu]
# Goes on where RECORD_FOLDER/vocabulary.json left off, if --resume is given.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: vocabulary.sh RECORD_FOLDER [options]}
shift
source benchmarks/carried.sh
export TORCHINDUCTOR_COMPILE_THREADS=1
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor COLUMNS=200
packages=/tmp/fusegen_vocabulary
bench=(python3 -m fusegen bench --suite vocabulary --no-max-autotune --out "$packages" "$@")
mkdir -p "$out"
started=$SECONDS
[ -n "$packed" ] || python3 -m fusegen build benchmarks/specs --out "$packages" --jobs 10 > "$out/build.txt" 2>&1 &
building=$!
shards=$((cores < 14 ? cores : 14))
for n in $(seq "$shards"); do
  timeout 100 "${bench[@]}" --warm --shard "$n/$shards" > "/tmp/warm$n.txt" 2>&1 &
done
wait "$building"
echo "build: exit $? after $((SECONDS - started)) s"; [ -n "$packed" ] || tail -12 "$out/build.txt"
wait
echo "warmed after $((SECONDS - started)) s"; tail -qn 1 /tmp/warm*.txt | cut -c1-150 | sort | uniq -c
timeout "${FUSEGEN_BENCH_SECONDS:-90}" "${bench[@]}" --output "$out/vocabulary.json" > "$out/bench.txt" 2>&1
echo "bench: exit $? after $((SECONDS - started)) s"; grep '^\[' "$out/bench.txt"; tail -6 "$out/bench.txt"
