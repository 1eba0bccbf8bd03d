"""Tensors between pages that nobody may touch: a kernel that reads or writes beside one ends the process.

`python -m prove sanitizers` does this with every form and with random programs.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
import signal
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import NAMES
from prove.guarded import LAYOUTS, PAGE, guard, guarded

from fusegen.chain import Chain
from fusegen.tools.check import verify


def touched(place: int) -> int:
    """Read a byte in a forked process, and return how that ended."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        ctypes.string_at(place, 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_guarded_tensor_is_equal_and_at_an_end_of_its_pages() -> None:
    rng = random.Random(0)
    ends = set()
    for shape in [(1,), (7,), (3, 5), (2, 3, 4, 5), (1025,), (), (0, 3)]:
        for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool):
            tensor = torch.arange(100_000)[: torch.Size(shape).numel()].reshape(shape).to(dtype)
            for _ in LAYOUTS:
                found = guarded(tensor, rng)
                assert torch.equal(found, tensor) and found.dtype == dtype
                if found.numel():
                    size = found.untyped_storage().nbytes()
                    ends.add((found.data_ptr() % PAGE == 0, (found.data_ptr() + size) % PAGE == 0))
    assert ends >= {(True, False), (False, True)}


def test_what_touches_a_guard_ends() -> None:
    for seed in range(6):
        tensor = guarded(torch.ones(1001), random.Random(seed))
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.untyped_storage().nbytes()
        assert touched(begin) == touched(end - 1) == 0
        assert touched(begin - 1 if begin % PAGE == 0 else end) == -signal.SIGSEGV


@pytest.mark.parametrize("name", NAMES)
def test_kernels_touch_nothing_beside_their_tensors(
    name: str, package: Callable[[str], ModuleType], derived: Callable[[str], Chain]
) -> None:
    rng = random.Random(name)
    chain, guards = derived(name), guard(package(name), rng)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        shape = (rng.choice((1, 3, 33)), rng.choice((1, 7, 17, 129, 1025)))
        training = len(chain.modes) == 2 and shape[0] > 1
        case = verify.make_case(chain, shape, training=training, seed=rng.randrange(1000))
        moving = ["x", *(o.name for o in chain.operands if o.differentiable)]
        found = []
        for called in (guards, package(name)):
            tensors = {
                n: (t.to(dtype) if t.is_floating_point() else t).requires_grad_(n in moving)
                for n, t in {"x": case.x.clone(), **case.operands}.items()
            }
            y = called.apply(**tensors, **case.options)
            leaves = [tensors[n] for n in moving]
            grads = torch.autograd.grad(y, leaves, torch.ones_like(y), create_graph=True)
            second = torch.autograd.grad(sum(g.sum() for g in grads), leaves, allow_unused=True)
            found.append([y, *grads, *(s for s in second if s is not None)])
        for mine, plain in zip(*found, strict=True):
            most = 64 * torch.finfo(dtype).eps * (1 + plain.detach().abs().max().item())
            torch.testing.assert_close(mine, plain, rtol=0, atol=most, equal_nan=True)
