"""Under torch.autocast a chain returns the dtype that torch's own functions return."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, once, shared
from random_programs.generate import Generator
from random_programs.program import spec_text
from shared.vocabulary import build_for_devices
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fusegen import load, spec
from fusegen.chain import Chain, autocast
from fusegen.ops import find, registry
from fusegen.ops.autocast import IN_FLOAT32
from fusegen.toolchain import pipeline
from fusegen.tools.bench import plain
from fusegen.tools.check.verify import make_case

HALF = torch.bfloat16


@contextmanager
def autocasting(device: str) -> Iterator[None]:
    """Autocast for a device that need not be there, with tensors without memory."""
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_autocast_enabled(device, True)
        torch.set_autocast_dtype(device, HALF)
        try:
            yield
        finally:
            torch.set_autocast_enabled(device, False)


def of_eager(
    chain: Chain, shape: tuple[int, ...], device: str, wide: Collection[str] = ()
) -> torch.dtype | None:
    """Return the dtype that torch's functions give for tensors of 16 bits, and some operands of float32.

    None if one asks for a GPU, or refuses float32 beside 16 bits, as `lerp` does.
    """
    case = make_case(chain, shape, training=False)

    def fake(tensor: Tensor, name: str = "x") -> Tensor:
        dtype = torch.float32 if name in wide else HALF
        dtype = dtype if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, device=device)

    with autocasting(device):
        operands = [fake(case.operands[o.name], o.name) for o in chain.operands]
        try:
            return plain.tail(chain, case.options)(fake(case.x), *operands).dtype
        except RuntimeError as error:
            if re.search(
                "not linked with support for cuda|expected dtype torch.(float32|bfloat16)",
                str(error),
            ):
                return None
            raise


def expected(chain: Chain, device: str, wide: Collection[str] = ()) -> torch.dtype:
    """Return the dtype that a package gives."""
    found = {*autocast.float32_values(chain.spec, device), *wide}
    reaching = False
    for segment in chain.segments:
        for label, names in autocast.promoting_operands(chain.spec, segment.span).items():
            if reaching or not names.isdisjoint(found):
                found.add(label)
        reaching = segment.steps[-1].label in found
    return torch.float32 if reaching else HALF


#: What an op needs to be a step.
SETTINGS = {
    **{"where": None, "masked_fill": None, "causal_mask": None, "argmax": None, "argmin": None},
    "threshold": "{threshold: 0.1, value: 0.2}",
    "clamp": "{min: -1}",
    "pow": "2",
    "rms_norm": "{eps: 1e-6}",
    "group_norm": "{num_groups: 2, features: 8}",
    "batch_norm": "{features: 8}",
    "instance_norm": "{features: 8}",
}


def test_the_table_is_that_of_torch(tmp_path: Path) -> None:
    """For every op that torch has, alone in a chain."""
    seen: set[tuple[str, str]] = set()
    for name, op in registry().items():
        setting = SETTINGS.get(name, "")
        if not op.torch or op.source or setting is None or op.eval_mode == "identity":
            continue
        operands = {n: "full" for n in op.operands if not op.submodule and not op.optional}
        if name == "binary_cross_entropy_with_logits":
            operands = {"target": "full"}
        if op.classes:
            operands = {op.classes: "{kind: row, dtype: int64}"}
        given = [f"{n}: {n}" for n in operands]
        if "reduction" in op.attributes:
            given.append("reduction: none")
        if "keepdim" in op.attributes:
            given.append("dim: -1")
        step = f"{name}: {setting}" if setting else f"{name}: {{{', '.join(given)}}}"
        declared = f"operands: {{{', '.join(f'{n}: {k}' for n, k in operands.items())}}}\n"
        dims = "" if op.classes else "dims: 3\n"
        path = tmp_path / f"one_{name}.yaml"
        used = declared if operands and not setting else ""
        path.write_text(f"order: 0\n{dims}{used}chain:\n  - {step if given or setting else name}\n")
        chain = pipeline.derive(path)
        for device in IN_FLOAT32:
            found = of_eager(chain, (4, 8, 6) if dims else (4, 8), device)
            if found is not None:
                assert found is expected(chain, device), (name, device)
                seen.add((name, device))
            for operand in (o.name for o in chain.operands if not o.integer):
                found = of_eager(chain, (4, 8, 6) if dims else (4, 8), device, [operand])
                assert found in (None, expected(chain, device, [operand])), (name, operand, device)
    listed = {(n, d) for d, names in IN_FLOAT32.items() for n in names & registry().keys()}
    assert seen >= listed, listed - seen


@pytest.mark.parametrize(
    ("formula", "wide"),
    [
        ("x * 2 + 1", False),
        ("x / (1 + abs(x))", False),
        ("1 / (1 + abs(x))", True),
        ("x ** 2", True),
        ("x * exp(-x)", True),
        ("gelu(x) * silu(x)", False),
        ("x * a ** 2", False),
        ("x - mean(x)", False),
        ("x - sum(x)", True),
        ("softplus(x, beta=a)", True),
    ],
)
def test_formulas(formula: str, wide: bool, tmp_path: Path) -> None:
    """As a person writes them in torch: powers and inverses of tensors are of float32, on a GPU."""
    path = tmp_path / "formula.yaml"
    arguments = "arguments: {a: float}\n" if "a *" in formula or "=a" in formula else ""
    path.write_text(f'{arguments}chain: [{{expr: "{formula}"}}, tanh]\n')
    read = spec.load(path)
    assert bool(autocast.float32_values(read, "cuda")) == wide
    assert not autocast.float32_values(read, "cpu")


def test_random_chains(tmp_path: Path) -> None:
    compared, seed, rng = 0, 9000, random.Random(9)
    while compared < 4:
        seed += 1
        program = Generator(f"random{seed}", seed).program()
        steps = program.document["chain"]
        named = [step if isinstance(step, str) else next(iter(step)) for step in steps]
        if not all((op := find(name)) and op.torch for name in named):
            continue  # the reference writes a formula's mean as a sum
        path = tmp_path / f"random{seed}.yaml"
        path.write_text(spec_text({**program.document, "order": 0}))
        read = spec.load(path)
        values = [value for step in read.steps for value in step.operands.values()]
        if not all(isinstance(value, spec.Ref) and not value.is_argument for value in values):
            continue  # torch's function takes no number there
        if any(map(autocast._is_single, read.steps[:-1])) or read.steps[-1].indexes:
            continue  # whether one number is of [1] or [] then decides
        chain = pipeline.derive(path)
        for device in IN_FLOAT32:
            got = of_eager(chain, program.shape, device)
            assert got in (None, expected(chain, device)), (seed, device, steps)
            weights = {  # of norms over other dims, which the reference writes out
                ref.name
                for step in read.steps
                for slot, ref in step.operands.items()
                if step.op and slot in step.op.optional and isinstance(ref, spec.Ref)
            }
            narrow = [o.name for o in chain.spec.operands if not (o.integer or o.float32)]
            free = [name for name in narrow if name not in weights]
            wide = [name for name in free if rng.random() < 0.3]
            got = of_eager(chain, program.shape, device, wide)
            assert got in (None, expected(chain, device, wide)), (seed, device, steps, wide)
        compared += 1


SPECS = {
    "loss_and_scaled": """
order: 1
operands: {target: {kind: row, dtype: int64}, factor: scalar}
outputs: [scaled, best, cross_entropy]
chain:
  - expr: {formula: "factor * x", name: scaled}
  - argmax: {name: best, dim: 1}
  - expr: "scaled"
  - cross_entropy: target
""",
    "of_parameters": """
arguments: {in_features: int, out_features: int}
order: 1
operands:
  exact: {kind: col, init: randn, dtype: float32}
  scale: {kind: col, init: randn}
  shift: {kind: scalar, init: 0.25}
outputs: [kept, tanh]
chain:
  - linear
  - mul: {other: exact, name: kept}
  - mul: scale
  - add: shift
  - tanh
""",
    "loss_by_element": """
operands: {target: full}
chain:
  - tanh
  - mse_loss: {target: target, reduction: none}
""",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder, dtypes = shared(tmp_path_factory) / "autocast", ("float32", "bfloat16")
    once(tmp_path_factory, "autocast", lambda: build_for_devices(folder, SPECS, dtypes))
    return load("loss_and_scaled", folder / "generated")


@pytest.mark.parametrize("device", DEVICES)
def test_a_package_under_autocast(device: str, package: ModuleType) -> None:
    """The loss has float32's digits; what autocast leaves has 16 bits; without it all is as before."""
    x = torch.randn(65, 33, device=device, dtype=HALF, requires_grad=True)
    target = torch.randint(33, (65,), device=device)
    factor = torch.tensor([1.5], device=device, dtype=HALF, requires_grad=True)
    with torch.autocast(device, HALF):
        scaled, best, loss = package.apply(x, target=target, factor=factor)
    assert (scaled.dtype, best.dtype, loss.dtype) == (HALF, torch.int64, torch.float32)
    wide = (x.detach().double() * 1.5).requires_grad_()
    truth = torch.nn.functional.cross_entropy(wide, target)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, x)
    (true,) = torch.autograd.grad(truth, wide)
    assert gradient.dtype is HALF
    torch.testing.assert_close(gradient.double(), 1.5 * true, rtol=2**-7, atol=1e-6)
    values = package.apply(x, target=target, factor=factor)
    assert [v.dtype for v in values] == [HALF, torch.int64, HALF]
    for own, dtype in (
        (factor.detach().float(), torch.float32),
        (factor.detach()[0].float(), HALF),
    ):
        with torch.autocast(device, HALF):
            scaled, best, loss = package.apply(x, target=target, factor=own)
        assert (scaled.dtype, best.dtype, loss.dtype) == (dtype, torch.int64, torch.float32)
        torch.testing.assert_close(scaled, (x.float() * 1.5).to(dtype))


@pytest.mark.parametrize("device", DEVICES)
def test_a_parameter_of_float32_makes_the_result_float32(device: str, package: ModuleType) -> None:
    """As in eager. Its digits are then all those of float32, and so are the gradient's of the parameter."""
    of_parameters = load("of_parameters", Path(package.__file__ or "").parents[1])
    torch.manual_seed(3)
    ours = of_parameters.Module(16, 33).to(device)
    x = torch.randn(65, 16, device=device, requires_grad=True)

    def eager(x: Tensor) -> tuple[Tensor, Tensor]:
        kept = ours.linear(x) * ours.exact
        return kept, (kept * ours.scale + ours.shift).tanh()

    found = []
    for function in (ours, eager):
        with torch.autocast(device, HALF):
            kept, value = function(x)
        found.append([value, *torch.autograd.grad(value.sin().sum(), [x, ours.scale, ours.shift])])
        assert value.dtype is torch.float32
        # Declared with `dtype: float32`, it is read as it is, and decides nothing.
        assert kept.dtype is (HALF if function is ours else torch.float32)
    for got, wanted in zip(*found, strict=True):
        assert got.dtype is wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=0.02, atol=0.02)
    half = ours.bfloat16()
    with torch.autocast(device, HALF):
        assert half(x)[1].dtype is eager(x)[1].dtype is HALF


@pytest.mark.parametrize("device", DEVICES)
def test_a_value_alone_under_autocast(device: str, package: ModuleType) -> None:
    """A chain of one value returns the whole of it, with gradients and without them."""
    loss = load("loss_by_element", Path(package.__file__ or "").parents[1])
    x = torch.randn(65, 33, device=device, dtype=HALF)
    target = torch.randn(65, 33, device=device, dtype=HALF)
    truth = (x.double().tanh() - target.double()).square()
    for requires_grad in (False, True):
        own = x.clone().requires_grad_(requires_grad)
        with torch.autocast(device, HALF):
            got = loss.apply(own, target=target)
        assert (got.dtype, got.shape) == (torch.float32, x.shape)
        torch.testing.assert_close(got.double(), truth, rtol=1e-5, atol=1e-6)
