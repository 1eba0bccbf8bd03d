"""Builds that run at once, and builds that were killed, leave a good build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from shared.tiny_packages import (
    KERNELS,
    Workshop,
    answer,
    kernel,
    start,
    wait_until,
)

from fusegen.base.errors import UserError
from fusegen.toolchain.lock import build_lock


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


@pytest.mark.parametrize("built_before", [False, True])
def test_a_killed_build_leaves_the_next_one_good(
    built_before: bool,
    shop: Workshop,
) -> None:
    """Killed with half an object written, newer than its source."""
    shop.compiler("")
    a = shop.spec("a", kernel(1))
    if built_before:
        shop.build(a)
        shop.spec("a", kernel(2))
    half = shop.out / ".build" / "a" / "kernel_portable.o"
    marker = shop.out.parent / "compiler"
    wait = f"echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 30"
    shop.compiler(f'case "$*" in *kernel.cpp*) echo half > {half}; {wait};; esac')
    process = start(a, shop.out)
    wait_until(marker.exists)
    os.killpg(process.pid, signal.SIGKILL)
    os.kill(int(marker.read_text()), signal.SIGKILL)  # ninja gave it a process group of its own
    process.communicate()
    assert half.read_text() == "half\n"
    shop.compiler("")
    shop.build(a)
    assert answer(shop.out / "a" / "_cpu.so") == (2 if built_before else 1)


def test_processes_that_build_at_once_compile_everything_once(shop: Workshop) -> None:
    log = shop.compiler("sleep 0.1")
    a = shop.spec("a", kernel(7))
    processes = [start(a, shop.out) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    calls = [line for line in log.read_text().splitlines() if line.startswith("start ")]
    assert sum("kernel.cpp" in call for call in calls) == len(KERNELS)
    assert sum("binding.cpp" in call for call in calls) == 1
    assert answer(shop.out / "a" / "_cpu.so") == 7


def test_a_wait_names_the_holder_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEGEN_LOCK_TIMEOUT", "0.2")
    heard: list[str] = []
    with build_lock(tmp_path, heard.append):
        assert heard == []
        with (
            pytest.raises(UserError, match=rf"process {os.getpid()} on .*0\.2 s.*LOCK_TIMEOUT"),
            build_lock(tmp_path, heard.append),
        ):
            pytest.fail("two held the lock")
    assert len(heard) == 1
    assert f"waiting for process {os.getpid()} on " in heard[0]
    assert "since" in heard[0]
    with build_lock(tmp_path, heard.append):  # it was given back
        assert len(heard) == 1


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fusegen.toolchain.lock import build_lock\n"
        "with build_lock(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(30)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    heard: list[str] = []
    with build_lock(tmp_path, heard.append):
        assert heard == []


def test_compilers_that_outlive_a_killed_build_are_waited_for(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fusegen alone is killed, as the kernel does where memory runs out; its compiler works on."""
    marker, go = tmp_path / "compiling", tmp_path / "go"
    wait = f"touch {marker}; for i in $(seq 200); do [ -e {go} ] && break; sleep 0.02; done"
    shop.compiler(f'case "$*" in *kernel.cpp*) {wait};; esac')
    a = shop.spec("a", kernel(1))
    process = start(a, shop.out)
    wait_until(marker.exists)
    process.kill()
    process.wait()
    monkeypatch.setenv("FUSEGEN_LOCK_TIMEOUT", "0.3")
    try:
        with pytest.raises(UserError, match=rf"process {process.pid} on .* still builds"):
            shop.build(a)
    finally:
        go.touch()
    process.communicate()  # its standard error ends with the last of its compilers
    monkeypatch.setenv("FUSEGEN_LOCK_TIMEOUT", "20")
    shop.build(a)
    assert answer(shop.out / "a" / "_cpu.so") == 1
