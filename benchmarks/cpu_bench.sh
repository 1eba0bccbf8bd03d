#!/usr/bin/env bash
# Builds the specs for the CPU, compiles torch.compile's variants in parallel, then measures on two cores.
#   bash benchmarks/cpu_bench.sh RECORD_FOLDER [options of `fusegen bench`]
# Goes on where RECORD_FOLDER/cpu.json left off, if --resume is given.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: cpu_bench.sh RECORD_FOLDER [options]}
shift
source benchmarks/carried.sh
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor COLUMNS=200
lscpu | grep -E 'Model name|^CPU\(s\)|Thread|L2|L3|avx512f' | cut -c1-120
cat /sys/kernel/mm/transparent_hugepage/enabled
python3 -m fusegen build specs --backend cpu 2>&1 | tail -14
started=$SECONDS
shards=$cores
for n in $(seq "$shards"); do  # the number of threads is compiled in: two, as below
  OMP_NUM_THREADS=2 taskset -c $((n - 1)) timeout 150 python3 -m fusegen bench --device cpu --no-max-autotune \
    --warm --shard "$n/$shards" "$@" > "/tmp/warm$n.txt" 2>&1 &
done
wait
echo "warmed in $((SECONDS - started)) s"; tail -qn 1 /tmp/warm*.txt | cut -c1-150
taskset -c 0,1 timeout "${FUSEGEN_BENCH_SECONDS:-150}" python3 -m fusegen bench --device cpu --no-max-autotune \
  --output "$out/cpu.json" "$@" > "$out/bench.txt" 2>&1
echo "bench: exit $?"; grep '^\[' "$out/bench.txt" | sed 's/matmul_//'; tail -6 "$out/bench.txt"
