"""Builds that are killed, that run at once, of another version of fusegen, or with another compiler."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fusegen.base import stamp
from fusegen.base.version import FORMAT, __version__
from prove.fault_bench import Bench, Row, judged, kill


def killed(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """All processes of a build are killed at a random moment; every third build is then let run."""
    bench = Bench(folder)
    row = Row("a build is killed with its compilers")
    after = Row("the build after one or more that were killed")
    bench.write(1)
    begin = time.monotonic()
    bench.build()
    takes = time.monotonic() - begin
    now = 1
    for trial in range(2, count + 2):
        bench.write(trial)
        process = bench.start()
        time.sleep(rng.uniform(0, 1.1 * takes))
        kill(process.pid)
        process.communicate()
        row.trials += 1
        row.saw(bench.verdict(now, trial), f"killed build {trial}")
        if trial % 3 == 0:
            after.trials += 1
            kind, text = bench.build()
            after.saw(
                bench.verdict(trial) if kind == "right" else ("wrong", text), f"build {trial}"
            )
            now = trial
        elif bench.verdict(trial)[0] == "right":
            now = trial
    yield row
    yield after


#: Fuses a small model in a folder of packages that other processes use too.
FUSES = """
import sys, torch, fusegen
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.SiLU(), torch.nn.LayerNorm(16))
x = torch.randn(4, 8)
wanted = model(x)
fused = fusegen.fuse(model, (x,))
found = fused(x)
assert torch.allclose(found, wanted, atol=1e-5), (found - wanted).abs().max()
print(fusegen.report(fused))
"""


def at_once(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """Eight builds of a spec, of eight specs in a folder, and eight processes that fuse a model, at once."""
    del count, rng
    bench = Bench(folder / "one")
    bench.write(7)
    row = Row("eight builds of one spec at once")
    processes = [bench.start() for _ in range(8)]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        row.trials += 1
        kind, text = judged(process.returncode, said)
        row.saw(bench.verdict(7) if kind == "right" else ("wrong", text))
    yield row
    row = Row("eight builds of eight specs in one folder at once")
    benches = [Bench(folder / "eight", f"faulty_{n}") for n in range(8)]
    for n, one in enumerate(benches):
        one.write(n + 2)
    processes = [one.start() for one in benches]
    for n, (one, process) in enumerate(zip(benches, processes, strict=True)):
        said, _ = process.communicate(timeout=300)
        row.trials += 1
        kind, text = judged(process.returncode, said)
        row.saw(one.verdict(n + 2) if kind == "right" else ("wrong", text))
    yield row
    row = Row("eight processes that fuse a model with one cache at once")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FUSES],
            env=bench.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(8)
    ]
    for process in started:
        said, _ = process.communicate(timeout=300)
        row.trials += 1
        row.saw(("right", "") if process.returncode == 0 else ("wrong", said[-600:]))
    yield row


def versions(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """A package of another version of fusegen, older and newer, or of another format."""
    del count, rng
    bench = Bench(folder)
    bench.write(8)
    bench.build()
    python = bench.out / bench.name / "__init__.py"
    library = bench.out / bench.name / "_cpu.so"
    text, content = python.read_text(), library.read_bytes()
    row = Row("a package of another fusegen: older, newer, of another format, before there was one")
    after = Row("the build after it")
    here = f'made_by("{__version__}"'
    ending = f", {FORMAT})"
    for other in (
        text.replace(here, 'made_by("0.0.1"'),
        text.replace(here, 'made_by("99.0"'),
        text.replace(ending, f", {FORMAT + 1})", 1),
        text.replace(ending, ")", 1),
        "".join(line for line in text.splitlines(keepends=True) if not line.startswith("made_by(")),
    ):
        assert other != text
        python.write_text(other.replace("operands=", "unknown=", 1))
        said = stamp.read(library).body()
        said["packages"][bench.name]["__init__.py"] = stamp.sha(python)
        stamp.append(library, said)
        row.trials += 1
        verdict = bench.verdict(8)
        row.saw(("wrong", "it was loaded") if verdict[0] == "right" else verdict)
        after.trials += 1
        kind, told = bench.build()
        after.saw(bench.verdict(8) if kind == "right" else ("wrong", told))
        python.write_text(text)
        library.write_bytes(content)
    yield row
    yield after


def compilers(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """A compiler that is another one, is not there, fails, is killed, or writes half a file."""
    del count, rng
    bench = Bench(folder)
    row = Row("a compiler that is another, missing, failing, killed, or writes half an object")
    after = Row("the build after it with a good compiler")
    good = shutil.which("g++") or "c++"
    scripts = {
        "another": f'#!/bin/sh\nexec {good} "$@"\n',
        "failing": "#!/bin/sh\necho 'x.cpp:1: error: internal compiler error' >&2\nexit 1\n",
        "killed": "#!/bin/sh\nkill -9 $$\n",
        "half": f'#!/bin/sh\n{good} "$@" || exit $?\n'
        'for f; do case $f in *kernel*.o) head -c 999 "$f" > "$f.h"; mv "$f.h" "$f";; esac; done\n',
    }
    for number, (what, script) in enumerate({**scripts, "missing": ""}.items(), 2):
        compiler = folder / f"{what}-g++"
        if script:
            compiler.write_text(script)
            compiler.chmod(0o755)
        bench.write(number)
        row.trials += 1
        verdict = bench.build(CXX=str(compiler))
        row.saw(bench.verdict(number) if verdict[0] == "right" else verdict, what)
        after.trials += 1
        kind, text = bench.build()
        after.saw(bench.verdict(number) if kind == "right" else ("wrong", text), what)
    yield row
    yield after
