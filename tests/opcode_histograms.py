"""Compares what two versions of fusegen compile to for a GPU: each kernel's instructions, registers, spills.

A rewritten form of kernel should compile to what the old one did. This says so on a machine without a GPU:

    python tests/opcode_histograms.py record OLD.json FOLDER...   # folders of generated packages
    python tests/opcode_histograms.py compare OLD.json NEW.json

It needs nvcc, and cuobjdump and nvdisasm, for example from PyPI's nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm. FUSEGEN_STORED names the types to compile for, float,bfloat16 unless set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from fusegen.base import paths

#: The types that numbers are stored in, for each of which kernels are compiled here.
STORED = os.environ.get("FUSEGEN_STORED", "float,bfloat16").split(",")
#: Forms whose kernels are the only ones.
_ALONE = ("flat", "pointwise", "columns")
#: Instructions that only say where a kernel's code ends, or that a scheduler may add or leave out.
IGNORED = {"NOP", "BRA", "EXIT", "YIELD"}


def histograms(folder: Path, stored: str) -> dict[str, dict[str, int]]:
    """Compile a package's kernels for compute capability 9.0, and count each kernel's instructions.

    Besides opcodes without their suffixes, a kernel has "registers", "spills" and "barriers".
    """
    with tempfile.TemporaryDirectory() as scratch:
        cubin = Path(scratch) / "kernel.cubin"
        flags = ["-O3", "--fmad=false", "-std=c++17", "-arch=sm_90", f"-DFUSEGEN_STORED={stored}"]
        include = os.environ.get("FUSEGEN_INCLUDE", paths.include())
        command = ["nvcc", *flags, f"-I{include}", "-cubin", "-Xptxas", "-v"]
        done = subprocess.run(
            [*command, "-o", str(cubin), str(folder / "kernel.cu")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr[:4000])
        sass = subprocess.run(
            ["cuobjdump", "-sass", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
    found: dict[str, dict[str, int]] = {}
    for mangled, text in re.findall(
        r"Function properties for (\S+)\n(.*?)(?=\nptxas info\s+: (?:Function|Compiling)|\Z)",
        done.stderr,
        re.DOTALL,
    ):
        spills = [int(n) for n in re.findall(r"(\d+) bytes spill", text)]
        registers = re.search(r"Used (\d+) registers", text)
        if registers:
            found[mangled] = {"registers": int(registers[1]), "spills": sum(spills)}
    for part in sass.split("Function : ")[1:]:
        mangled, _, code = part.partition("\n")
        opcodes = re.findall(
            r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]*)", code, re.M
        )
        counted = Counter(opcode for opcode in opcodes if opcode not in IGNORED)
        found.setdefault(mangled.strip(), {}).update(counted)
    names = subprocess.run(
        ["c++filt"], input="\n".join(found), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    keys = [f"{folder.name}: {key_of(name)}" for name in names]
    return dict(zip(keys, found.values(), strict=True))


def key_of(name: str) -> str:
    """Return what a kernel's name says whatever its form is called: kernel, form, dtype, numbers."""
    name = re.sub(r"\(anonymous namespace\)::|fusegen(_\w+)?::|\(\w+\)(?=\d)", "", name)
    called, _, rest = name.removeprefix("void ").partition("<")
    arguments = rest[: rest.rindex(">(")] if ">(" in rest else rest
    described = re.match(r"(\w+?)Form<[^>]*>\s*, (?:\w+Launch, )?", arguments)
    if described:
        kernel = "_".join(re.findall(r"[A-Z][a-z0-9]*", described[1])).lower()
        called = kernel if called in _ALONE else f"{kernel}_{called}"
        arguments = arguments[described.end() :]
    return f"{called}<{arguments}>"


def compare(old: dict[str, dict[str, int]], new: dict[str, dict[str, int]]) -> int:
    """Print how kernels differ. Return how many are worse: more spills, or 2 % more instructions."""
    worse = 0
    for key in sorted(old.keys() ^ new.keys()):
        print(f"{'only before' if key in old else 'only after '}  {key}")
    both = sorted(old.keys() & new.keys())
    sums = [Counter[str](), Counter[str]()]
    for key in both:
        before, after = old[key], new[key]
        counts = [sum(n for op, n in c.items() if op.isupper()) for c in (before, after)]
        for total, count, parts in zip(sums, counts, (before, after), strict=True):
            total.update(instructions=count, registers=parts["registers"], spills=parts["spills"])
        if after["spills"] > before["spills"] or counts[1] > 1.02 * counts[0]:
            worse += 1
            changes = ", ".join(
                f"{op} {before.get(op, 0)}->{after.get(op, 0)}"
                for op in sorted(before.keys() | after.keys())
                if before.get(op, 0) != after.get(op, 0)
            )
            print(f"{key}: {counts[0]} -> {counts[1]} instructions; {changes}")
    for what in ("instructions", "registers", "spills"):
        print(f"{what}: {sums[0][what]} -> {sums[1][what]}")
    print(f"{len(both)} kernels compared, {worse} are worse")
    return worse


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "record":
        out, *folders = arguments
        found: dict[str, dict[str, int]] = {}
        for folder in folders:
            for stored in STORED:
                found |= histograms(Path(folder), stored)
        Path(out).write_text(json.dumps(found, indent=1, sort_keys=True))
    else:
        before, after = (json.loads(Path(file).read_text()) for file in arguments)
        sys.exit(bool(compare(before, after)))


if __name__ == "__main__":
    main()
