"""Memory of large results goes to the next result of its size, and never to two at once."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT, python
from torch import Tensor

from fusegen.toolchain.compilers import find_compilers

Package = Callable[[str], ModuleType]

#: Prints by how many MiB the process grew while ten results of 40 MiB lived, and after.
GROWTH = """
import os, torch
from pathlib import Path
from fusegen.runtime.loading import load_package
apply = load_package("matmul_swish_scale", Path("generated")).apply
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
x, bias = torch.randn(1280, 8192), torch.ones(8192)
apply(x[:8], bias)
before = resident()
results = [apply(x, bias) for _ in range(10)]
print(resident() - before)
del results
print(resident() - before)
"""


@pytest.fixture
def result(package: Package) -> Callable[[], Tensor]:
    """Gives a new result of 2 MiB and some bytes."""
    apply = package("matmul_swish_scale").apply
    x = torch.randn(513, 1025, generator=torch.Generator().manual_seed(0))
    return lambda: apply(x, torch.ones(1025))


def test_freed_memory_is_taken_again(result: Callable[[], Tensor]) -> None:
    kept = result()
    place = result().data_ptr()
    assert place % 64 == 0
    assert place != kept.data_ptr()
    assert result().data_ptr() == place
    assert torch.equal(result(), kept)


def test_memory_is_no_others_while_anything_refers_to_it(result: Callable[[], Tensor]) -> None:
    view = result()[3:5]
    storage = result().untyped_storage()
    results = [result() for _ in range(5)]
    places = [view.untyped_storage().data_ptr(), storage.data_ptr()]
    assert len({*places, *(r.data_ptr() for r in results)}) == 7
    assert torch.equal(view, results[0][3:5])


def test_gradients_of_any_order_are_right(package: Package) -> None:
    """What a call saved lives on in the pool's memory while later calls take theirs."""
    apply = package("matmul_swish_scale").apply
    x = torch.randn(300, 1024, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(1024, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        first = torch.autograd.grad(apply(x, bias).sum(), (x, bias), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), x)[0]
        y = torch.nn.functional.silu(x + bias) * 2.0
        wanted = torch.autograd.grad(y.sum(), (x, bias), create_graph=True)
        also = torch.autograd.grad(wanted[0].square().sum() + wanted[1].sum(), x)[0]
        for got, truth in zip((*first, second), (*wanted, also), strict=True):
            torch.testing.assert_close(got, truth)


def test_results_are_tensors_as_others_are(result: Callable[[], Tensor]) -> None:
    y = result()
    assert y.device == torch.device("cpu")
    assert y.untyped_storage().nbytes() == y.numel() * 4
    for twin in (copy.deepcopy(y), pickle.loads(pickle.dumps(y)), y.clone()):
        assert torch.equal(twin, y)
        assert twin.data_ptr() != y.data_ptr()
    array = result().numpy()  # holds the memory by itself
    gc.collect()
    assert torch.equal(torch.from_numpy(array), result())
    shared = result().share_memory_()
    assert shared.is_shared()
    assert torch.equal(shared, y)


def test_results_lie_as_x_does(package: Package) -> None:
    x = torch.randn(1100, 1024).T
    y = package("swish_tanh_mish").apply(x)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, package("swish_tanh_mish").apply(x.contiguous()))


@pytest.mark.usefixtures("generated")
@pytest.mark.parametrize(("bound", "kept"), [("0", 0), ("100", 80), ("1000", 400)])
def test_no_more_is_kept_than_the_bound(bound: str, kept: int) -> None:
    done = python(GROWTH, FUSEGEN_POOL_MB=bound, FUSEGEN_HUGE_PAGES="0")
    assert done.returncode == 0, done.stderr
    alive, after = map(int, done.stdout.split())
    assert 395 <= alive <= 420
    assert kept - 5 <= after <= kept + 20


@pytest.mark.usefixtures("generated")
def test_a_bound_that_is_none_is_named() -> None:
    for wrong in ("-1", "lots", ""):
        done = python(GROWTH, FUSEGEN_POOL_MB=wrong)
        assert done.returncode == 1
        assert f"FUSEGEN_POOL_MB={wrong}: expected whole MiB" in done.stderr


def test_threads_and_forked_processes(tmp_path: Path) -> None:
    program = tmp_path / "pool_threads"
    include = ROOT / "templates" / "include"
    source = ROOT / "tests" / "pool_threads.cpp"
    command = [str(find_compilers().cxx), "-std=c++17", "-O2", "-pthread", f"-I{include}"]
    subprocess.run([*command, str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
