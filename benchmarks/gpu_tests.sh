#!/usr/bin/env bash
# Builds every spec and runs every test on a CUDA machine, and writes a record of it.
#   bash benchmarks/gpu_tests.sh RECORD_FOLDER
# Where packages are missing and there is no network, put wheels into .whl/ first.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: gpu_tests.sh RECORD_FOLDER}
source benchmarks/carried.sh
{
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  nvcc --version | tail -2 | head -1
  c++ --version | head -1
  python3 -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)'
  # A plus: with changes that were not committed where the tests ran.
  echo "commit ${FUSEGEN_COMMIT:-$(git log -1 --format='%h %cs')$([ -z "$(git status --porcelain)" ] || echo ' +')}"
} | tee "$out/machine.txt"
python3 -m fusegen build specs --backend cuda --portable 2>&1 | tee "$out/build.txt" | tail -15
python3 -m fusegen check specs > "$out/check.txt" 2>&1
echo "fusegen check: exit $?" | tee -a "$out/machine.txt"
export OMP_NUM_THREADS=2  # 14 workers with as many threads as there are cores would wait for each other
export FUSEGEN_OUTCOMES=$out/outcomes.txt PYTHONPATH=$PWD/benchmarks:$PYTHONPATH
timeout -s INT 460 python3 -m pytest -q -n 14 -p outcomes -p no:cacheprovider ${FUSEGEN_TESTS:-} > "$out/tests.txt" 2>&1
echo "pytest: exit $?" | tee -a "$out/machine.txt"
grep -A12 '^failed' "$out/outcomes.txt" | cut -c1-220 | head -60
tail -3 "$out/tests.txt" | tee -a "$out/machine.txt"
