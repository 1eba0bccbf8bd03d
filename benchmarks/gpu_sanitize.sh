#!/usr/bin/env bash
# Watches every form of kernel on a GPU, at small shapes: compute-sanitizer's memcheck, racecheck, initcheck and
# synccheck, side by side; then values, bits from run to run, and whether every form was reached.
#   bash benchmarks/gpu_sanitize.sh RECORD_FOLDER
# Builds benchmarks/forms into /tmp/fusegen_forms. About eight minutes on an H200 with 16 cores. TOOLS="memcheck values"
# runs some of it, SPECS="columns" does so for some specs. SANITIZE_SECONDS ends each process, and SECONDS_IN_ALL all.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: gpu_sanitize.sh RECORD_FOLDER}
mkdir -p "$out"
source benchmarks/carried.sh
export PYTORCH_NO_CUDA_MEMORY_CACHING=1  # each tensor is an allocation of its own
export OMP_NUM_THREADS=1 packages=/tmp/fusegen_forms watched=/tmp/fusegen_forms_watched said=/tmp/fusegen_sanitize
started=$SECONDS
mkdir -p "$said"
tools=${TOOLS:-values synccheck memcheck initcheck racecheck}
names=${SPECS:-$(cd benchmarks/forms && ls *.yaml | sed 's/.yaml$//')}
build_into() {
  python3 -m fusegen build $(printf 'benchmarks/forms/%s.yaml ' $names) --out "$1" --backend cuda 2>&1
}
# memcheck and initcheck take a copy of less than 16 bytes to shared memory for a read of 16 (reads.cuh).
if [[ $tools == *memcheck* || $tools == *initcheck* ]]; then
  NVCC_APPEND_FLAGS=-DFUSEGEN_WATCHED build_into "$watched" > "$out/sanitize_build_watched.txt" &
fi
build_into "$packages" > "$out/sanitize_build.txt"
echo "build: exit $? after $((SECONDS - started)) s"
wait
echo "builds: after $((SECONDS - started)) s"
padding=
compute-sanitizer --help 2>&1 | grep -q -- --padding && padding="--padding 256"
export padding
run_one() {
  local tool=$1 name=$2 part=${3:-} folder=$packages what=call code=0
  local file=$said/${tool}_$name${3:+_$3}.txt left=$((until - $(date +%s)))
  local command=(compute-sanitizer --tool "$tool" --error-exitcode 9)
  case $tool in
    values) command=() what=values part= ;;
    memcheck) command+=($padding --kernel-regex kns=fusegen) folder=$watched ;;
    initcheck) folder=$watched ;;  # torch's kernels too: what they write is then known to be written
    synccheck) command+=(--kernel-regex kns=fusegen --num-cuda-barriers 65536) ;;
    *) command+=(--kernel-regex kns=fusegen) ;;  # torch's kernels would take most of the time
  esac
  local limit=${SANITIZE_SECONDS:-150}
  timeout "$((left < 1 ? 1 : left < limit ? left : limit))" "${command[@]}" python3 benchmarks/sanitize.py $what "$folder" "$name" $part \
    > "$file" 2>&1 || code=$?
  # At once: what a run finds must not be lost where the machine's time ends.
  [ "$code" = 0 ] || { head -40 "$file"; echo ...; tail -15 "$file"; } > "$out/sanitize_$(basename "$file")"
  echo "$tool $name${3:+ $3}: exit $code; $(grep -E '^[0-9]+ calls' "$file"); $(grep SUMMARY "$file" | tail -1 | sed 's/=* *//')"
}
export -f run_one
export out said until=$(($(date +%s) - SECONDS + started + ${SECONDS_IN_ALL:-560}))
for tool in $tools; do
  # racecheck takes minutes for a spec, so it has the calls in parts: the largest last.
  if [ "$tool" = racecheck ]; then
    python3 benchmarks/sanitize.py parts $names | sort -s -n -k 2 | sed 's/^/racecheck /'
  else
    printf "$tool %s\n" $names
  fi
done | xargs -P "$cores" -L 1 bash -c 'run_one "$@"' run_one | tee "$said/all.txt"
{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  compute-sanitizer --version | tail -2 | head -1
  echo "commit ${FUSEGEN_COMMIT:-$(git log -1 --format='%h %cs')}, torch $(python3 -c 'import torch; print(torch.__version__)')"
  sort "$said/all.txt"
  if ls "$said"/values_*.txt > /dev/null 2>&1; then
    python3 benchmarks/sanitize.py forms "$said"/values_*.txt
    python3 benchmarks/sanitize.py raced "$said/all.txt" "$said"/values_*.txt
    sort -u "$said"/values_*.txt | grep '^form '
  fi
} > "$out/sanitize.txt"
grep -E 'forms ran|no call|racecheck:|under racecheck' "$out/sanitize.txt"
failed=0
grep -qE '^[a-z]+ [a-z_]+( [0-9]+)?: exit [^0]' "$said/all.txt" && failed=1
echo "after $((SECONDS - started)) s: $([ $failed = 0 ] && echo 'nothing found' || echo 'something found, in sanitize_*.txt')"
exit $failed
