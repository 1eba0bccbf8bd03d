"""Chains whose value has another shape than x: what compilers, transforms and forward mode are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import once, shared
from random_programs.build import build_together
from torch import Tensor, distributed
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.func import grad, jvp, vmap

from fusegen import load

#: By name: a chain with an operand b, the shape of x, and that of b.
CHAINS = {
    "reduced_dropped": (
        "dims: 4\noperands: {b: channel}\nchain:\n  - add: b\n  - logsumexp: {dim: 1}\n  - mish\n",
        (2, 3, 4, 5),
        (3, 1, 1),
    ),
    "reduced_kept": (
        "dims: 4\noperands: {b: full}\nchain:\n  - mul: b\n  - sum: {dim: 2, keepdim: true}\n",
        (2, 3, 4, 5),
        (2, 3, 4, 5),
    ),
    "reduced_and_gone": (
        "dims: 4\noperands: {b: full}\nchain:\n  - mul: b\n  - sum: {dim: 2}\n",
        (2, 3, 4, 6),
        (2, 3, 4, 6),
    ),
    "reduced_to_one": ("operands: {b: col}\nchain:\n  - mul: b\n  - norm\n", (4, 5), (5,)),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "reduced"

    def build() -> None:
        texts = {name: text for name, (text, _, _) in CHAINS.items()}
        build_together(folder, texts, dtypes=["float64"])

    once(tmp_path_factory, "reduced", build)
    return folder / "generated"


@pytest.mark.parametrize("name", CHAINS)
def test_everybody_is_told_the_shape(name: str, out: Path) -> None:
    _, *shapes = CHAINS[name]
    package = load(name, out)
    x, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    forward, backward, _ = package._chain.operators("same")
    found = forward.run((x, b))
    value, *statistics = (found,) if isinstance(found, Tensor) else found
    cotangent = torch.randn_like(value).requires_grad_()
    torch.library.opcheck(forward.overload, (x, b))
    torch.library.opcheck(backward.overload, (x, b, cotangent, *statistics))
    torch.autograd.gradcheck(package.apply, (x, b), check_forward_ad=True)
    torch.autograd.gradgradcheck(package.apply, (x, b), check_fwd_over_rev=True)

    def run(x: Tensor) -> Tensor:
        result: Tensor = package.apply(x, b)
        return result

    stack = torch.randn(3, *x.shape, dtype=torch.float64)
    gradient = grad(lambda x: run(x).square().sum())
    for function in (run, gradient, lambda x: jvp(run, (x,), (x,))[1]):
        torch.testing.assert_close(vmap(function)(stack), torch.stack([*map(function, stack)]))
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x))


#: Where the value lies for an x that is sharded along a dim; what a row needs is gathered first.
PLACED = {
    "reduced_dropped": {0: Shard(0), 1: Replicate(), 3: Replicate()},
    "reduced_kept": {0: Shard(0), 1: Shard(1), 2: Partial(), 3: Shard(3)},
    "reduced_and_gone": {0: Shard(0), 1: Shard(1), 2: Partial(), 3: Shard(2)},
    "reduced_to_one": {0: Replicate(), 1: Replicate()},
}


def sharded(rank: int, out: Path, store: Path) -> None:
    """Compare values and gradients of two shards with those of the whole; run in each of two processes."""
    method = f"file://{store}"
    distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for name, (_, *shapes) in CHAINS.items():
        package = load(name, out)
        torch.manual_seed(0)
        tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
        wanted = [value := package.apply(*tensors)]
        wanted += torch.autograd.grad(value.square().sum(), tensors)
        for dim, placed in PLACED[name].items():
            given = [
                distribute_tensor(t.detach(), mesh, [place]).requires_grad_()
                for t, place in zip(
                    tensors,
                    (Shard(dim), Shard(dim) if shapes[1] == shapes[0] else Replicate()),
                    strict=True,
                )
            ]
            value = package.apply(*given)
            assert value.placements == (placed,), (name, dim, value.placements)
            found = [value, *torch.autograd.grad(value.square().sum(), given)]
            for got, expected in zip(found, wanted, strict=True):
                torch.testing.assert_close(got.full_tensor(), expected)
    distributed.destroy_process_group()


def test_shards_of_reduced_results(out: Path, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(sharded, (out, tmp_path / "store"), nprocs=2)
