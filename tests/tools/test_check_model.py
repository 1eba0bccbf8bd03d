"""`fusegen check model.py:Class`: what it accepts, what it finds wrong, and how it says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from shared import by_torch
from shared.command import fusegen_here
from torch import Tensor, nn

from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend, backend
from fusegen.tools.against_eager.check import Verdict, check
from fusegen.tools.against_eager.copies import copy_of
from fusegen.tools.against_eager.exact_casts import ExactCasts
from fusegen.tools.against_eager.original import Original, original_of

MODEL = """
import torch
from torch import nn
from torch.nn import functional

class Block(nn.Module):
    def __init__(self, width, p=0.5):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(width), nn.Linear(width, width)
        self.drop, self.drop_path = nn.Dropout(p), 0.1

    def forward(self, x, ids):
        h = self.drop(functional.gelu(self.linear(x))) * ids[:, None]
        h = functional.dropout(h, self.drop_path, self.training)
        return torch.tanh(self.norm(h)), h.argmax(-1)

class Rms(nn.Module):
    def forward(self, x):
        h = x.float()
        return (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

def pair(x, y): return torch.tanh(x) * y
def random(x): return functional.dropout(x, training=True).tanh()
plain = nn.Linear(4, 4)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "blocks.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEGEN_MODELS", str(tmp_path / "models"))
    torch._dynamo.reset()
    yield tmp_path
    torch._dynamo.reset()


def verdicts(
    text: str, inputs: str, *dtypes: torch.dtype, change: Callable[[Any], Any] | None = None
) -> list[Verdict]:
    """Check a model whose specs torch computes; `change` is done to what a package gives."""

    def packages(specs: Any, folder: Any, *, build: bool) -> Any:
        found, refused = by_torch.packages(specs, folder, build=build)
        if change is None:
            return found, refused

        def changed(apply: Any) -> Any:
            return torch._dynamo.disable(lambda *args, **kwargs: change(apply(*args, **kwargs)))

        return {n: SimpleNamespace(apply=changed(p.apply)) for n, p in found.items()}, refused

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "packages_of", packages)
        used = FusegenBackend(everything=True)
        return check(original_of(text, inputs, "cpu"), used, dtypes or (torch.float32,))


def test_a_model_in_all_dtypes_and_modes() -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    found = verdicts("blocks.py:Block(8)", "x=16x8,ids=16:int64:1..4", *dtypes)
    assert len(found) == 9
    for verdict in found:
        assert not verdict.wrong and not verdict.skipped
        assert {"output 0", "output 1", "buffer norm.running_var"} <= verdict.errors.keys()
        assert ("gradient of x" in verdict.errors) == (verdict.mode != "eval, no grad")
        assert ("gradient of linear.weight" in verdict.errors) == (verdict.mode != "eval, no grad")
        assert "gradient of ids" not in verdict.errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y * (1 + 1e-5), r"output: .* times eager's error \(at most 4\)"),
        (lambda y: y.bfloat16(), "output: its dtype is bfloat16, in eager float32"),
        (lambda y: y[1:], r"output: its shape is \[3, 8\], in eager \[4, 8\]"),
        (lambda y: y.detach(), "gradient of x is missing"),
        (lambda y: y + torch.tensor([torch.nan] + 7 * [0.0]), "4 numbers are not finite"),
        (lambda y: y.no_such, "the fused model fails: AttributeError"),
    ],
)
def test_what_is_wrong_is_found(change: Callable[[Tensor], Any], message: str) -> None:
    (train, *_) = verdicts("blocks.py:pair", "4x8,4x8", change=change)
    assert any(re.search(message, what) for what in train.wrong), train.wrong


def test_a_cast_inside_a_model_does_not_round_the_truth() -> None:
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    with ExactCasts():
        y = x.float().to(torch.bfloat16).softmax(-1, dtype=torch.float32).half()
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
    exact = x.softmax(-1)
    (wanted,) = torch.autograd.grad(exact.square().sum(), x)
    torch.testing.assert_close(y, exact, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, wanted, rtol=1e-13, atol=1e-16)
    for verdict in verdicts("blocks.py:Rms", "4x8", torch.float32, torch.bfloat16):
        assert not verdict.wrong and verdict.worst


def test_what_is_random_or_not_fused_is_one_message() -> None:
    with pytest.raises(UserError, match="cannot be checked: the model draws random numbers"):
        verdicts("blocks.py:random", "4x8")
    with pytest.raises(UserError, match=r"nothing of blocks.py:plain is fused: linear: a product"):
        verdicts("blocks.py:plain", "4x4")
    with pytest.raises(UserError, match=r"cannot be checked: eager fails: RuntimeError: The size"):
        verdicts("blocks.py:pair", "3,4")


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (torch.bfloat16, "eager fails: ValueError: not this one"),
        (torch.float64, "there is no truth: eager fails in float64: ValueError: not this one"),
    ],
)
def test_what_eager_refuses_is_not_compared(refused: torch.dtype, reason: str) -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype is refused:
                raise ValueError("not this one")
            return torch.tanh(x) * 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "packages_of", by_torch.packages)
        used = FusegenBackend(everything=True)
        given = Original("half", Half(), "4x8", "cpu")
        if refused is torch.float64:
            with pytest.raises(UserError, match=reason):
                check(given, used, (torch.bfloat16,))
            return
        found = check(given, used, (torch.bfloat16, torch.float32))
    assert [bool(v.skipped) for v in found] == 3 * [True] + 3 * [False]
    assert found[0].skipped == reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("blocks.py:pair",), "is a model: give example inputs, such as --inputs 4x128x512"),
        (("blocks.py:pair", "specs", "--inputs", "3"), "give one model at a time"),
        (("specs", "--inputs", "3"), "--inputs is for a model"),
        (("specs", "--dtype", "float32"), "--device and --dtype .* are for a model"),
        (("blocks.py:pair", "--inputs", "3"), "missing a required argument: 'y'"),
        (("blocks.py:pair", "--inputs", "3,3", "--dtype", "flot32"), "did you mean 'float32'"),
        (("blocks.py:par", "--inputs", "3"), "has no 'par'; did you mean 'pair'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...], message: str, home: Path
) -> None:
    done = fusegen_here("check", *arguments, cwd=home)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(message, error)
    assert "Traceback" not in done.stderr


def test_the_command_exits_with_1_where_something_is_wrong(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "packages_of", by_torch.packages)
    command = ("check", "blocks.py:pair", "--inputs", "4x8,4x8", "--dtype", "float32")
    done = fusegen_here(*command, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "(2)" in done.stdout and "FAILED" not in done.stdout
    assert "tanh mul" in done.stdout
    torch._dynamo.reset()
    monkeypatch.setattr("fusegen.tools.against_eager.check.BOUND", 1e-9)
    done = fusegen_here(*command, cwd=home)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "float32, train: gradient of x: 1" in done.stderr


@pytest.mark.slow
def test_a_built_package_passes(home: Path) -> None:
    done = fusegen_here(
        *("check", "blocks.py:pair", "--inputs", "4x8,4x8", "--dtype", "float32"), cwd=home
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "models" / "generated").is_dir()


class Kept(nn.Module):
    """Calls its submodules through a function that it keeps, as minGPT does."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)})
        mlp = self.mlp
        self.mlp_of = lambda x, *, factor=2: mlp.down(mlp.up(x).tanh()) * factor
        if not self.training:
            late = None
        self.never = lambda: late

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.mlp_of(x) + x)


def test_a_copy_calls_its_own_submodules() -> None:
    model = Kept()
    wide = copy_of(model).double()
    x = torch.randn(3, 4)
    wide(x.double()).sum().backward()
    torch.testing.assert_close(wide(x.double()).float(), model(x))
    assert wide.mlp.up.weight.grad is not None
    assert model.mlp.up.weight.grad is None
