#!/usr/bin/env bash
# Builds the tails with an old version of fusegen and with this one, and times both in turn on a GPU.
#   bash benchmarks/versions.sh OLD_CHECKOUT RECORD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
old=$(realpath "$1") out=$2 here=$PWD
source benchmarks/carried.sh
site=${PYTHONPATH#*:}
work=$(mktemp -d)
for name in $(python3 -c 'import sys; sys.path.insert(0, "benchmarks"); import versions; print(*versions.SPECS)'); do
  for version in old new; do
    mkdir -p "$work/specs_$version"
    cp "$(ls specs/"$name".yaml benchmarks/specs/"$name".yaml 2>/dev/null | head -1)" "$work/specs_$version/${version}_$name.yaml"
  done
done
(cd "$old" && PYTHONPATH=$old:$site python3 -m fusegen build "$work/specs_old" --out "$work/old" --backend cuda) > "$work/old.txt" 2>&1 &
python3 -m fusegen build "$work/specs_new" --out "$work/new" --backend cuda > "$work/new.txt" 2>&1
wait
for round in 1 2; do
  (cd "$old" && PYTHONPATH=$old:$site python3 "$here/benchmarks/versions.py" "$work/old" "$work/specs_old" old_ "$work/old$round.json")
  python3 benchmarks/versions.py "$work/new" "$work/specs_new" new_ "$work/new$round.json"
done
{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  python3 - "$work" <<'PY'
import json, sys
from pathlib import Path

old, new = ([json.loads(Path(sys.argv[1], f"{v}{r}.json").read_text()) for r in (1, 2)] for v in ("old", "new"))
for cell in new[0]:
    row = []
    for place, what in enumerate(("copy", "forward", "backward")):
        before, after = (min(run[cell][place] for run in runs) for runs in (old, new))
        row.append(f"{what} {before:7.1f} {after:7.1f} {after / before:.3f}")
    print(f"{cell:62s}", *row)
PY
} | tee "$out/versions.txt"
