"""`fusegen import`: a model as the command line names it, its inputs, and the specs that are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from shared.command import fusegen_here
from torch import Tensor, nn

import fusegen
from fusegen.base.errors import UserError
from fusegen.models.cost import Cost
from fusegen.models.imported import ImportedSpec
from fusegen.tools.importing import inputs_of, model_of, write_specs

MODEL = """
import dataclasses
import torch
from torch import Tensor, nn

@dataclasses.dataclass
class Config:
    width: int = 8

SIZES = Config()

class Block(nn.Module):
    def __init__(self, width, act="gelu", config=None):
        super().__init__()
        self.norm1, self.linear = nn.LayerNorm(width), nn.Linear(width, width)
        self.act = getattr(nn.functional, act)

    def forward(self, x, residual):
        return self.linear(self.act(self.norm1(x + residual)))

class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x, gate):
        return torch.tanh(x) * self.scale + gate

def made(): return Block(8)
def sized(width): return Block(width)
def pair(x, y): return torch.tanh(x) * y
def broken(): raise RuntimeError("no weights")
ready = Block(8)
number = 3
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "blocks.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "blocks", raising=False)
    torch._dynamo.reset()
    return tmp_path


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "text",
    [
        *("blocks.py:Block(8)", "blocks.py:Block(width=8, act='silu')", "blocks.py:ready"),
        *("blocks.py:made", "blocks.py:made()", "blocks.py:sized(8)", "blocks:Block(8)"),
        *("blocks.py:Block(8, config=Config(width=4))", "./blocks.py:Block(SIZES.width)"),
    ],
)
def test_a_model_by_its_name(text: str) -> None:
    model = model_of(text)
    assert isinstance(model, nn.Module)
    assert model.linear.in_features == 8


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks.py", "names no model: write model.py:Class"),
        ("block.py:Block", "block.py: there is no such file in"),
        ("blocks.py:Blok", "has no 'Blok'; did you mean 'Block'?"),
        ("blocks.py:Block", r"missing a required argument: 'width'.*blocks.py:Block\(width=…\)"),
        ("blocks.py:Block(8, deep=2)", "unexpected keyword argument 'deep'"),
        ("blocks.py:Block(8, act='nothing')", r"Block cannot be made: AttributeError: .*nothing"),
        ("blocks.py:Block(2 ** 3)", r"'2 \*\* 3' is no argument here: give a literal"),
        ("blocks.py:Block(*[8])", "give each argument by itself"),
        ("blocks.py:Block(", "is no name or call"),
        ("blocks.py:number", "is int, not a torch.nn.Module"),
        ("blocks.py:broken", "broken cannot be made: RuntimeError: no weights"),
        ("no_such.module:Block", "fails when it is imported: ModuleNotFoundError"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_message(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model_of(text)


def test_inputs_by_place_and_by_name() -> None:
    def model(x: object, ids: object = None, flag: bool = False, *more: object) -> None: ...

    given = inputs_of("2x3,ids=4:int64:10..12,flag=True", model, torch.bfloat16).arguments
    assert given["x"].shape == (2, 3) and given["x"].dtype is torch.bfloat16
    assert given["ids"].dtype is torch.int64 and set(given["ids"].tolist()) <= {10, 11}
    assert given["flag"] is True
    given = inputs_of("scalar,4x2:bool,0.5,[1, 2],3:int32:1", model).arguments
    assert given["x"].dim() == 0 and given["x"].dtype is torch.float32
    assert given["ids"].dtype is torch.bool and given["flag"] == 0.5
    assert given["more"][0] == [1, 2] and given["more"][1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2y3", "'2y3' is no input; an input is a shape, such as 4x128"),
        ("2x3:flot32", "'flot32' is no dtype; did you mean 'float32'?"),
        ("2x3:float32:9", "a range .* is for integers"),
        ("2x3:int64:9..4", "has no number"),
        ("x=2,3", "3 comes after inputs with a name"),
        ("y=2", r"missing a required argument: 'x'; the model takes \(x\)"),
    ],
)
def test_inputs_that_say_nothing_are_one_message(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        inputs_of(text, lambda x: x)


def test_the_command_writes_specs_and_never_over_another(home: Path) -> None:
    command = ("import", "blocks.py:Block(8)", "--inputs", "2x3x8,residual=8")
    done = fusegen_here(*command, cwd=home)
    assert done.returncode == 0, done.stderr
    (path,) = (home / "specs").iterdir()
    assert path.name == "block_add_norm1_gelu.yaml"
    assert "linear x 1: a product" in done.stdout
    assert "fusegen build specs" in done.stdout
    assert fusegen_here("show", str(path), cwd=home).returncode == 0
    owned = path.read_text() + "  - tanh\n"
    path.write_text(owned)
    refused = fusegen_here(*command, cwd=home)
    assert refused.returncode == 2
    assert re.search(r"block_add_norm1_gelu.yaml is there already.*--force", refused.stderr)
    assert path.read_text() == owned
    write_specs(
        [ImportedSpec(path.stem, "new", (), "", Cost(0, 0, 0, 0), ())], path.parent, force=True
    )
    assert path.read_text() == "new"


def test_nothing_to_fuse_says_why(home: Path) -> None:
    (home / "plain.py").write_text("from torch import nn\nmodel = nn.Linear(4, 4)\n")
    done = fusegen_here("import", "plain.py:model", "--inputs", "2x4", cwd=home)
    assert done.returncode == 2
    assert "there is nothing to fuse in plain.py:model" in done.stderr
    assert "linear x 1: a product" in done.stderr
    assert not (home / "specs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_an_imported_spec_is_as_exact_as_the_model(home: Path) -> None:
    assert fusegen_here("import", "blocks.py:Gate", "--inputs", "4x8,4x8", cwd=home).returncode == 0
    fusegen.build("specs", out=home / "generated", quiet=True)
    package = fusegen.load("gate_tanh_mul_add", home / "generated")
    torch.manual_seed(0)
    tensors = (torch.randn(4, 8), torch.randn(8), torch.randn(4, 8))

    def results(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        given = [t.clone().requires_grad_() for t in tensors]
        out = function(*given)
        return [out, *torch.autograd.grad(out.square().sum(), given)]

    def eager(x: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        return torch.tanh(x) * scale + gate

    truth = results(eager, [t.double() for t in tensors])
    own, torchs = results(package.apply, tensors), results(eager, tensors)
    for value, other, exact in zip(own, torchs, truth, strict=True):
        error, eagers = ((v - exact).norm() / exact.norm() for v in (value, other))
        assert error <= 4 * eagers + 2e-7
