"""Builds in the background: a graph runs as eager until its packages are there, and then with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.by_torch import reference
from shared.tiny_packages import wait_until
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import fusegen
from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend, backend, background
from fusegen.models.packages import is_built
from fusegen.models.spec_text import PackageSpec
from fusegen.toolchain import render_pool

pytestmark = pytest.mark.slow


class Builds:
    """Stands in for `BuildProcess`: a build ends when it is told to. Its packages compute by torch."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.refused: dict[str, str] = {}
        self.started: list[list[str]] = []
        self.calls = 0

    def __call__(self, specs: Sequence[Path], out: Path) -> Builds:
        del out
        self.started.append([path.stem for path in specs])
        return self

    def wait(self) -> dict[str, str]:
        assert self.may_end.wait(30)
        return self.refused

    def stop(self) -> None:
        self.may_end.set()

    def end(self) -> None:
        """Let builds end, and wait for it."""
        self.may_end.set()
        assert fusegen.wait_for_builds(30)

    def load(self, specs: Any, folder: Any, refused: dict[str, str]) -> Any:
        """Stand in for `load_packages`."""
        del folder
        given = [spec for spec in specs if spec.name not in refused]
        return {s.name: SimpleNamespace(apply=self._counted(s.text)) for s in given}, refused

    def _counted(self, text: str) -> Callable[..., Any]:
        apply = reference(text)

        @torch._dynamo.disable
        def counted(x: Tensor, **operands: Any) -> Any:
            self.calls += 1
            # Saves a tensor more than eager, so that a checkpoint sees which of them it repeats.
            return apply(x + 0 * torch.sin(x), **operands)

        return counted


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Builds]:
    made = Builds()
    monkeypatch.setattr(background, "BuildProcess", made)
    monkeypatch.setattr(backend, "load_packages", made.load)
    monkeypatch.setattr(backend, "is_built", lambda *_: False)
    # Other tests of this process declare ops.
    monkeypatch.setattr(render_pool, "has_own_declarations", lambda: False)
    monkeypatch.setattr(backend, "_WARNED", set())
    torch._dynamo.reset()
    yield made
    made.end()
    torch._dynamo.reset()


def gated(x: Tensor) -> Tensor:
    return functional.silu(x) * torch.tanh(x) + x


def two_parts(x: Tensor) -> Tensor:
    return (gated(x) @ x.T).exp().mul(0.1).softmax(-1)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def compiled(function: Any, folder: Path) -> tuple[Any, FusegenBackend]:
    made = FusegenBackend(folder, everything=True, background=True)
    return torch.compile(function, backend=made), made


def gradient(value: Tensor, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value.square().sum(), x)
    return found


def test_a_graph_is_fused_from_the_call_after_its_build(builds: Builds, tmp_path: Path) -> None:
    run, made = compiled(gated, tmp_path)
    x = inputs(4, 8)
    before = [run(x), run(x)]
    assert builds.calls == 0
    assert not fusegen.wait_for_builds(0)
    assert "until the call after its package is built" in str(made.report)
    assert not made.report.fused
    builds.end()
    assert builds.calls == 0
    after = run(x)
    assert builds.calls == 1
    assert len(made.report.fused) == made.report.graphs == 1  # it was not captured again
    for value in (*before, after):
        torch.testing.assert_close(value, gated(x))
        torch.testing.assert_close(gradient(value, x), gradient(gated(x), x))
    assert len(builds.started) == 1


def test_packages_that_are_there_are_used_at_once(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "is_built", lambda *_: True)
    monkeypatch.setattr(backend, "packages_of", lambda s, f, **_: builds.load(s, f, {}))
    run, made = compiled(gated, tmp_path)
    run(inputs(4, 8))
    assert builds.calls == 1
    assert made.report.fused
    assert not builds.started


@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_repeats_what_it_ran(builds: Builds, tmp_path: Path, *, nested: bool) -> None:
    run, _ = compiled(gated, tmp_path)

    def part(x: Tensor) -> Tensor:
        twice = checkpoint(run, run(x), use_reentrant=False) if nested else run(run(x))
        return torch.sin(twice)

    x = inputs(4, 8)
    wanted = gradient(torch.sin(gated(gated(torch.sin(gated(gated(x)))))), x)
    y = checkpoint(part, x, use_reentrant=False)
    builds.end()
    y = checkpoint(part, y, use_reentrant=False)
    assert builds.calls == 2  # of the second checkpoint
    torch.testing.assert_close(gradient(y, x), wanted)
    assert builds.calls > 2  # it was repeated


def test_a_checkpoint_inside_is_fused_too(builds: Builds, tmp_path: Path) -> None:
    run, _ = compiled(lambda x: checkpoint(gated, x, use_reentrant=False), tmp_path)
    before = run(x := inputs(4, 8))
    builds.end()
    for y in (before, run(x)):
        torch.testing.assert_close(gradient(y, x), gradient(gated(x), x))


def test_what_cannot_be_built_is_told_once_and_stays_eager(builds: Builds, tmp_path: Path) -> None:
    run, made = compiled(two_parts, tmp_path)
    x = inputs(4, 8)
    run(x)
    first, second = builds.started[0]
    builds.refused = {first: "no space left"}
    builds.end()
    with pytest.warns(UserWarning, match=f"{first} cannot be built; it stays eager: no space left"):
        value = run(x)
    assert builds.calls == 1
    assert [region.package for region in made.report.fused] == [second]
    assert "no space left" in str(made.report)
    torch.testing.assert_close(value, two_parts(x))
    other, _ = compiled(two_parts, tmp_path)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(x)
        other(x)
        builds.end()
        other(x)


def test_a_process_that_does_not_start_is_told(
    builds: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(background, "BuildProcess", fails)
    run, made = compiled(gated, tmp_path)
    x = inputs(4, 8)

    def twice() -> None:  # the build may have ended at the first call
        run(x)
        builds.end()
        torch.testing.assert_close(run(x), gated(x))

    with pytest.warns(UserWarning, match="OSError: no more processes"):
        twice()
    assert not made.report.fused


def test_what_comes_while_a_build_runs_is_built_together(builds: Builds, tmp_path: Path) -> None:
    started = threading.Event()
    specs = [PackageSpec(f"spec_{n}", "chain: [relu]\n") for n in range(3)]
    original = builds.wait

    def wait() -> dict[str, str]:
        started.set()
        return original()

    builds.wait = wait  # type: ignore[method-assign]
    first = background.start_build(specs[:1], tmp_path)
    assert started.wait(30)
    others = [background.start_build(specs[1:], tmp_path), background.start_build(specs, tmp_path)]
    assert builds.started == [["spec_0"]]
    builds.refused = {"spec_0": "because"}
    builds.end()
    assert builds.started == [["spec_0"], ["spec_1", "spec_2", "spec_0"]]
    assert first.refused == others[1].refused == builds.refused
    assert others[0].refused == {}


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="background needs rest='eager'"):
        FusegenBackend(tmp_path, background=True, rest="inductor")
    with pytest.raises(UserError, match="background is True or False, not 'yes'"):
        FusegenBackend(tmp_path, background="yes")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no eager form"):
        fusegen.fuse("x * tanh(x)", folder=tmp_path, background=True)


def test_real_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_pool, "has_own_declarations", lambda: False)
    torch._dynamo.reset()
    model, x = nn.Sequential(nn.GELU(), nn.Tanh()), torch.randn(4, 8)
    options: Any = {"folder": tmp_path, "everything": True, "background": True}
    fused = fusegen.fuse(model, x, **options)
    assert not fusegen.report(fused).fused
    assert fusegen.wait_for_builds(120)
    torch.testing.assert_close(fused(x), model(x))
    (region,) = fusegen.report(fused).fused
    assert is_built(PackageSpec(region.package, region.spec), tmp_path)
    assert not is_built(PackageSpec(region.package, f"{region.spec}\n"), tmp_path)


#: Builds with a compiler that says it has begun and takes long, and ends.
SCRIPT = """
import sys
from pathlib import Path
from fusegen.models import background
from fusegen.models.spec_text import PackageSpec
background.start_build([PackageSpec("late", "chain: [relu]\\n")], Path(sys.argv[1]))
print(Path(sys.argv[2]).read_text(), flush=True)
"""


def test_a_process_that_ends_ends_its_builds(tmp_path: Path) -> None:
    begun, compiler = tmp_path / "begun", tmp_path / "compiler"
    os.mkfifo(begun)  # who reads it waits for who writes it
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *" -c "*) echo $$ > {begun}; exec sleep 300;; esac\nexec g++ "$@"\n'
    )
    compiler.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(begun)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CXX": str(compiler), "MAX_JOBS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    def ended() -> bool:
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return True
        return False

    try:
        wait_until(ended)
    finally:
        if not ended():
            os.kill(int(done.stdout), signal.SIGKILL)
