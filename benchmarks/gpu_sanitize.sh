#!/usr/bin/env bash
# Watches every kernel form with compute-sanitizer: memcheck and racecheck, the specs side by side.
#   bash benchmarks/gpu_sanitize.sh RECORD_FOLDER
# Expects the specs to be built (benchmarks/gpu_tests.sh does that, or pack.sh), and those of benchmarks/specs if they
# are to be watched too (benchmarks/vocabulary.sh).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: gpu_sanitize.sh RECORD_FOLDER}
source benchmarks/carried.sh
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
specs=(specs/*.yaml)
[ ! -d /tmp/fusegen_vocabulary ] || specs+=(benchmarks/specs/*.yaml)
failed=0
for tool in memcheck racecheck; do
  pids=()
  for spec in "${specs[@]}"; do
    name=$(basename "$spec" .yaml)
    # Only fusegen's kernels are watched: torch's own would take most of the time.
    timeout "${SANITIZE_SECONDS:-150}" compute-sanitizer --tool "$tool" --error-exitcode 9 \
      --kernel-regex "kns=fusegen" python3 benchmarks/sanitize.py "$name" \
      > "/tmp/sanitize_${tool}_$name.txt" 2>&1 &
    pids+=("$!:$name")
  done
  for entry in "${pids[@]}"; do
    code=0
    wait "${entry%%:*}" || code=$?
    [ "$code" = 0 ] || failed=1
    file=/tmp/sanitize_${tool}_${entry#*:}.txt
    echo "$tool ${entry#*:}: exit $code; $(grep -E '^[0-9]+ calls' "$file"); $(grep -E 'SUMMARY' "$file" | tail -1)"
    [ "$code" = 0 ] || head -30 "$file" > "$out/sanitize_${tool}_${entry#*:}.txt"
  done
done | tee "$out/sanitize.txt"
exit $failed
