"""The models of models.yaml, fused, in plain torch and under torch.compile; whether the first is right."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import fusegen
from fusegen.base.files import write_if_different
from fusegen.chain import Chain
from fusegen.render.files import environment
from fusegen.render.module import helpers_in, lines_in_torch, module_context
from fusegen.toolchain import pipeline
from fusegen.tools.bench import compiling

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODELS = Path(__file__).with_name("models.yaml")
#: What a value and a gradient may be off by, of their size, in float32. Where a derivative jumps, as at the
#: bounds of a clamp, some elements lie on the other side: a millionth of them is a thousandth in norm.
VALUE, GRADIENT = 1e-5, 3e-3
#: The same for each number, since a mean may be of values that cancel.
LEAST = 1e-6
#: The model as one writes it in torch.
PLAIN = """
import torch
from torch import Tensor, nn
{% if used %}
from fusegen.runtime.steps import {{ used | join(", ") }}
{% endif %}


class Model(nn.Module):
{% include "module/constructor.py.j2" %}

    def forward(self, {{ inputs | join(", ") }}):
        {% for line in lines %}
        {{ line }}
        {% endfor %}
        return x
"""


@dataclass(frozen=True)
class Model:
    """A model of the table: its name, its constructor's arguments, the shapes of its inputs, its spec."""

    name: str
    made: Mapping[str, int]
    shapes: tuple[tuple[int, ...], ...]
    spec: Mapping[str, Any]

    @property
    def steps(self) -> str:
        """The steps in one line."""
        words = [step if isinstance(step, str) else next(iter(step)) for step in self.spec["chain"]]
        return " > ".join(words)

    def file(self, folder: Path) -> Path:
        """Write the spec below the folder of the packages, and return its file."""
        path = folder / "specs" / f"{self.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments = dict.fromkeys(self.made, "int")
        spec = {"arguments": arguments, "order": 1, "dtypes": ["float32"], **self.spec}
        write_if_different(path, yaml.safe_dump(spec, sort_keys=False))
        return path


def listed(names: Sequence[str], batch: int | None) -> list[Model]:
    """Return the models of the table, or those that are named, with another batch if one is given."""
    table = yaml.safe_load(MODELS.read_text())
    if unknown := sorted(set(names) - set(table)):
        sys.exit(f"{MODELS.name} has no {', '.join(unknown)}; it has {', '.join(table)}")
    found = []
    for name in names or table:
        given = dict(table[name])
        shapes = [given.pop("x"), *given.pop("also", ())]
        kept = [(batch or size, *rest) for size, *rest in shapes]
        found.append(Model(name, given.pop("module"), tuple(kept), given))
    return found


@dataclass(frozen=True)
class Subjects:
    """A model's calls by name, and what they are called with.

    Args:
        calls: each subject.
        inputs: what it is called with; all require gradients.
        leaves: the inputs and each subject's parameters.
        cotangents: the gradient of each subject's result, in its memory format: the numbers are the same.
    """

    calls: Mapping[str, nn.Module]
    inputs: tuple[Tensor, ...]
    leaves: Mapping[str, tuple[Tensor, ...]]
    cotangents: Mapping[str, Tensor]

    def prepared(self, subject: str, direction: str) -> Callable[[], object]:
        """Return a call."""
        call = self.calls[subject]
        if direction == "forward":
            return lambda: call(*self.inputs)
        leaves, cotangent = self.leaves[subject], self.cotangents[subject]
        return lambda: torch.autograd.grad(call(*self.inputs), leaves, cotangent)


def plain(chain: Chain) -> type[nn.Module]:
    """Return the model in plain torch: a class with the constructor and the state_dict of `Module`."""
    context = module_context(chain)
    lines = lines_in_torch(chain)
    text = environment().from_string(PLAIN).render(**context, lines=lines, used=helpers_in(lines))
    # A module of its own, in which torch.compile finds the class's globals.
    module = ModuleType(f"plain_{chain.spec.name}")
    sys.modules[module.__name__] = module
    exec(compile(text, module.__name__, "exec"), module.__dict__)  # noqa: S102
    found: type[nn.Module] = module.Model
    return found


def subjects(model: Model, folder: Path, *, fused: bool = True) -> Subjects:
    """Return what is measured of a model; without `fused` only torch.compile's, which needs no package."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        eager = plain(pipeline.derive(model.file(folder)))(**model.made)
        inputs = tuple(torch.randn(shape) for shape in model.shapes)
        calls: dict[str, nn.Module] = {"compile": compiling.compiled(eager, None)}
        if fused:
            own = fusegen.load(model.name, folder).Module(**model.made)
            own.load_state_dict(eager.state_dict())
            calls = {"fusegen": own, "eager": eager, **calls}
    with torch.no_grad():
        cotangents = dict.fromkeys(calls, torch.randn_like(eager(*inputs)))
        if fused:
            cotangents["fusegen"] = torch.empty_like(own(*inputs)).copy_(cotangents["eager"])
    leaves = {name: (*inputs, *call.parameters()) for name, call in calls.items()}
    for tensor in inputs:
        tensor.requires_grad_()
    return Subjects(calls, inputs, leaves, cotangents)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Set whether float32 products may use TF32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def results(found: Subjects, subject: str) -> list[Tensor]:
    """Return the value without gradients, the value, and the gradients."""
    call = found.calls[subject]
    with torch.no_grad():
        alone = call(*found.inputs)
    value = call(*found.inputs)
    gradients = torch.autograd.grad(value, found.leaves[subject], found.cotangents[subject])
    return [alone, value.detach(), *gradients]


def wrong(found: Subjects) -> str:
    """Return what is wrong with fusegen's results, or nothing. The truth is eager's.

    Neither uses TF32, which cuDNN may take in one memory format and not in the other. fusegen's convolutions
    are in channels-last, as they mostly are with TF32.
    """
    with tf32(allowed=False):
        truth = results(found, "eager")
        with fusegen.set_memory_format("channels_last"):
            own = results(found, "fusegen")
    size = _norm(found.cotangents["eager"])
    for place, (a, true) in enumerate(zip(own, truth, strict=True)):
        name = (
            ("the value without gradients", "the value")[place]
            if place < 2
            else f"gradient {place - 2}"
        )
        if a.shape != true.shape or a.dtype != true.dtype:
            return f"{name} is {a.dtype} {list(a.shape)}, not {true.dtype} {list(true.shape)}"
        error, whole = _norm(a - true), _norm(true)
        allowed = VALUE * whole if place < 2 else GRADIENT * (whole + size)
        if not error <= allowed + LEAST * true.numel() ** 0.5:
            return f"{name} is off by {error:.3g} of {whole:.3g} in all"
    return ""


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
