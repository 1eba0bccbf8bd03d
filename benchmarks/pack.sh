#!/usr/bin/env bash
# Builds the packages here for a machine whose time is short, and packs them into .whl/built.tar.xz. There
# gpu_bench.sh and vocabulary.sh take them as they are: torch's stable ABI lets a package run with a torch other than
# the one that it was built with.
#   bash benchmarks/pack.sh [ARCHITECTURE, 90 where it is not given]
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=${1:-90}
vocabulary=/tmp/fusegen_vocabulary
python3 -m fusegen build specs --backend cuda --arch "$architecture" --portable
python3 -m fusegen build benchmarks/specs --out "$vocabulary" --backend cuda --arch "$architecture" --portable
mkdir -p .whl
tar cJf .whl/built.tar.xz --exclude .build generated/*/*.so -C "$(dirname "$vocabulary")" "$(basename "$vocabulary")"
echo "$(git log -1 --format=%h)$([ -z "$(git status --porcelain)" ] || echo +)" > .whl/commit
ls -l .whl/built.tar.xz
