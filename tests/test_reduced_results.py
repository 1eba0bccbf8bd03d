"""Chains whose value has another shape than x: what compilers, transforms and forward mode are told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from fusegen import builder, load

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
    "reduced_to_one": ("operands: {b: col}\nchain:\n  - mul: b\n  - norm\n", (4, 5), (5,)),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reduced")
    paths = []
    for name, (text, _, _) in CHAINS.items():
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(text)
    builder.build(paths, out=folder, backend="cpu")
    return folder


@pytest.mark.xdist_group("reduced")
@pytest.mark.parametrize("name", CHAINS)
def test_everybody_is_told_the_shape(name: str, out: Path) -> None:
    _, *shapes = CHAINS[name]
    package = load(name, out)
    x, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    forward, backward, _ = package._chain.passes("same")
    found = forward.run((x, b))
    value, *statistics = (found,) if isinstance(found, Tensor) else found
    cotangent = torch.randn_like(value).requires_grad_()
    torch.library.opcheck(forward.operator, (x, b))
    torch.library.opcheck(backward.operator, (x, b, cotangent, *statistics))
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
