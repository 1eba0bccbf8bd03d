#!/usr/bin/env bash
# Watches every form of kernel on a GPU, at small shapes: compute-sanitizer's memcheck, racecheck, initcheck and
# synccheck, side by side; then values, bits from run to run, and whether every form was reached.
#   bash benchmarks/gpu_sanitize.sh RECORD_FOLDER
# Builds benchmarks/forms into /tmp/fusegen_forms. About five minutes on an H200 with 16 cores. TOOLS="memcheck values"
# runs some of it, SPECS="columns" does so for some specs, and SANITIZE_SECONDS ends each process.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: gpu_sanitize.sh RECORD_FOLDER}
mkdir -p "$out"
source benchmarks/carried.sh
export PYTORCH_NO_CUDA_MEMORY_CACHING=1  # each tensor is an allocation of its own
export OMP_NUM_THREADS=1 packages=/tmp/fusegen_forms said=/tmp/fusegen_sanitize
started=$SECONDS
mkdir -p "$said"
python3 -m fusegen build benchmarks/forms --out "$packages" --backend cuda > "$out/sanitize_build.txt" 2>&1
echo "build: exit $? after $((SECONDS - started)) s"
padding=
compute-sanitizer --help 2>&1 | grep -q -- --padding && padding="--padding 256"
export padding
run_one() {
  local tool=$1 name=$2 file=$said/$1_$2.txt code=0
  local watched=(compute-sanitizer --tool "$tool" --error-exitcode 9)
  case $tool in
    values) watched=() ;;
    memcheck) watched+=($padding --kernel-regex kns=fusegen) ;;
    initcheck) ;;  # torch's kernels too: what they write is then known to be written
    *) watched+=(--kernel-regex kns=fusegen) ;;  # torch's kernels would take most of the time
  esac
  local what=call
  [ "$tool" != values ] || what=values
  timeout "${SANITIZE_SECONDS:-150}" "${watched[@]}" python3 benchmarks/sanitize.py "$what" "$packages" "$name" \
    > "$file" 2>&1 || code=$?
  # At once: what a run finds must not be lost where the machine's time ends.
  [ "$code" = 0 ] || { head -40 "$file"; echo ...; tail -15 "$file"; } > "$out/sanitize_${tool}_$name.txt"
  echo "$tool $name: exit $code; $(grep -E '^[0-9]+ calls' "$file"); $(grep SUMMARY "$file" | tail -1 | sed 's/=* *//')"
}
export -f run_one
export out said
names=${SPECS:-$(cd benchmarks/forms && ls *.yaml | sed 's/.yaml$//')}
for tool in ${TOOLS:-racecheck initcheck memcheck synccheck values}; do
  for name in $names; do echo "$tool $name"; done
done | xargs -P "$cores" -L 1 bash -c 'run_one "$0" "$1"' | tee "$said/all.txt"
{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  compute-sanitizer --version | tail -2 | head -1
  echo "commit ${FUSEGEN_COMMIT:-$(git log -1 --format='%h %cs')}, torch $(python3 -c 'import torch; print(torch.__version__)')"
  sort "$said/all.txt"
  if ls "$said"/values_*.txt > /dev/null 2>&1; then
    python3 benchmarks/sanitize.py forms "$said"/values_*.txt
    sort -u "$said"/values_*.txt | grep '^form '
  fi
} > "$out/sanitize.txt"
grep -E 'forms ran|no call' "$out/sanitize.txt"
failed=0
grep -qE '^[a-z]+ [a-z_]+: exit [^0]' "$said/all.txt" && failed=1
echo "after $((SECONDS - started)) s: $([ $failed = 0 ] && echo 'nothing found' || echo 'something found, in sanitize_*.txt')"
exit $failed
