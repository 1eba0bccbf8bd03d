"""What is measured: a cell is one tail or model, dtype, shape and direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusegen import pipeline
from fusegen.bench.eager import EagerModel, eager_tail
from fusegen.bench.timing import Clock, medians
from fusegen.chain import Chain
from fusegen.eager import random_operand
from fusegen.runtime.loading import load_package

#: The tails of the reference models.
TAILS = (
    "matmul_add_swish_tanh_gelu_hardtanh",
    "matmul_swish_scale",
    "matmul_gelu_softmax",
    "scale_softmax",
    "matmul_dropout_softmax",
)
#: The reference models with their batch, in_features and out_features.
MODELS = {
    "matmul_add_swish_tanh_gelu_hardtanh": (1024, 8192, 8192),
    "matmul_swish_scale": (128, 32768, 32768),
    "matmul_gelu_softmax": (1024, 8192, 8192),
    "gemm_batchnorm_scale_softmax": (1024, 8192, 8192),
    "matmul_dropout_softmax": (128, 16384, 16384),
}
SHAPES = {
    "cuda": ("8192x8192", "4096x16384", "32768x1024", "2048x65536", "1024x8192", "128x32768"),
    "cpu": ("1024x8192", "128x32768", "16384x512", "64x64"),
}
DTYPES = {"cuda": ("float32", "bfloat16", "float16"), "cpu": ("float32", "bfloat16")}
#: What a variant is compiled with; `None` is torch.compile's default.
COMPILED = {"compile": None, "compile_max_autotune": "max-autotune-no-cudagraphs"}


@dataclass(frozen=True)
class Group:
    """The cells that share tensors and compiled functions.

    Args:
        kind: "tail" or "model".
        spec: the spec's name.
        dtype: such as "bfloat16", or "tf32" for a model in float32 whose matmuls may use tf32.
        rows, cols: the activation's shape.
        in_features: of a model.
    """

    kind: str
    spec: str
    dtype: str
    rows: int
    cols: int
    in_features: int | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of its tensors."""
        found: torch.dtype = getattr(torch, "float32" if self.dtype == "tf32" else self.dtype)
        return found

    def __str__(self) -> str:
        return f"{self.kind} {self.spec} {self.rows}x{self.cols} {self.dtype}"


@dataclass(frozen=True)
class Cell:
    """One line of the record; times in milliseconds, None where not measured."""

    kind: str
    spec: str
    dtype: str
    rows: int
    cols: int
    direction: str
    tensor_bytes: int
    fusegen_ms: float
    eager_ms: float
    compile_ms: float | None
    compile_max_autotune_ms: float | None
    copy_ms: float
    limit_ms: float
    linear_ms: float | None = None
    in_features: int | None = None

    def record(self) -> dict[str, Any]:
        """Return the cell as JSON has it."""
        found = asdict(self)
        if self.kind == "tail":
            del found["linear_ms"], found["in_features"]
        return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in found.items()}


@dataclass
class Bench:
    """Measures groups of cells.

    Args:
        device: "cuda" or "cpu".
        specs: the folder of the specs.
        out: the folder of the built packages.
        compiled: which of `COMPILED` to measure too.
        rounds: of each cell.
    """

    device: str
    specs: Path
    out: Path
    compiled: tuple[str, ...] = tuple(COMPILED)
    rounds: int = 25
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(self.device)

    def measure(self, group: Group) -> Iterator[Cell]:
        """Yield the cells of a group."""
        torch._dynamo.reset()
        torch.backends.cuda.matmul.allow_tf32 = group.dtype == "tf32"
        chain = pipeline.derive(self.specs / f"{group.spec}.yaml")
        torch.manual_seed(0)
        yield from (self._tail if group.kind == "tail" else self._model)(group, chain)

    def _tail(self, group: Group, chain: Chain) -> Iterator[Cell]:
        package = load_package(chain.spec.name, self.out)
        numbers = _numbers(chain)
        options: dict[str, Any] = dict(numbers)
        if len(chain.modes) == 2:
            options["training"] = True

        def fused(x: Tensor, *operands: Tensor) -> Tensor:
            result: Tensor = package.apply(x, *operands, **options)
            return result

        functions = self._with_compiled(fused, eager_tail(chain, numbers))
        generator = torch.Generator().manual_seed(0)
        sets = []
        for _ in range(2 if self.device == "cuda" else 4):
            x = torch.randn(group.rows, group.cols, device=self.device, dtype=group.torch_dtype)
            operands = [random_operand(o, x, generator) for o in chain.operands]
            leaves = [t.detach().requires_grad_() for t in (x, *operands)]
            sets.append((leaves, torch.randn_like(x)))
        copied = torch.empty_like(sets[0][1])

        def forward(function: Callable[..., Tensor], turn: int) -> Callable[[], object]:
            leaves, _ = sets[turn % len(sets)]

            def call() -> object:
                with torch.no_grad():
                    return function(*leaves)

            return call

        def backward(function: Callable[..., Tensor], turn: int) -> Callable[[], object]:
            leaves, cotangent = sets[turn % len(sets)]
            value = function(*leaves)
            return lambda: torch.autograd.grad(value, leaves, cotangent)

        def copy(turn: int) -> Callable[[], object]:
            return lambda: copied.copy_(sets[turn % len(sets)][1])

        for direction, prepare, tensors in (("forward", forward, 2), ("backward", backward, 3)):
            variants = {name: partial(prepare, f) for name, f in functions.items()}
            times = medians({**variants, "copy": copy}, self.clock, self.rounds)
            yield _cell(group, direction, times, times["copy"] * tensors / 2)

    def _model(self, group: Group, chain: Chain) -> Iterator[Cell]:
        assert group.in_features is not None
        package = load_package(chain.spec.name, self.out)
        numbers = _numbers(chain)
        made = package.Module(group.in_features, group.cols)
        fused = made.to(self.device, group.torch_dtype)
        eager = EagerModel(chain, fused, numbers)
        linear = nn.Linear(group.in_features, group.cols).to(self.device, group.torch_dtype)
        models = {**self._with_compiled(fused, eager), "linear": linear}
        shape = (group.rows, group.in_features)
        x = torch.randn(shape, device=self.device, dtype=group.torch_dtype, requires_grad=True)
        cotangent = torch.randn(group.rows, group.cols, device=self.device, dtype=group.torch_dtype)
        copied = torch.empty_like(cotangent)

        def forward(model: Callable[[Tensor], Tensor]) -> object:
            with torch.no_grad():
                return model(x)

        def both(model: Callable[[Tensor], Tensor]) -> object:
            parameters = [p for p in _owner(model).parameters() if p.requires_grad]
            return torch.autograd.grad(model(x), [x, *parameters], cotangent)

        for direction, run in (("forward", forward), ("forward+backward", both)):
            variants = {name: _always(partial(run, m)) for name, m in models.items()}
            variants["copy"] = _always(partial(copied.copy_, cotangent))
            times = medians(variants, self.clock, self.rounds)
            yield _cell(group, direction, times, times["linear"])

    def _with_compiled(self, fused: Any, eager: Any) -> dict[str, Any]:
        functions = {"fusegen": fused, "eager": eager}
        for name in self.compiled:
            mode = COMPILED[name]
            functions[name] = torch.compile(eager, mode=mode, fullgraph=True, dynamic=False)
        return functions


def _always(call: Callable[[], object]) -> Callable[[int], Callable[[], object]]:
    """Return what prepares the same call every time."""
    return lambda _turn: call


def _owner(model: Any) -> nn.Module:
    found: nn.Module = getattr(model, "_orig_mod", model)
    return found


def _numbers(chain: Chain) -> dict[str, float]:
    return {
        a.name: float(a.default) if a.default is not None else 1.5  # type: ignore[arg-type]
        for a in chain.spec.arguments
        if a.name in chain.attributes
    }


def _cell(group: Group, direction: str, times: dict[str, float], limit: float) -> Cell:
    return Cell(
        kind=group.kind,
        spec=group.spec,
        dtype=group.dtype,
        rows=group.rows,
        cols=group.cols,
        direction=direction,
        tensor_bytes=group.rows * group.cols * group.torch_dtype.itemsize,
        fusegen_ms=times["fusegen"],
        eager_ms=times["eager"],
        compile_ms=times.get("compile"),
        compile_max_autotune_ms=times.get("compile_max_autotune"),
        copy_ms=times["copy"],
        limit_ms=limit,
        linear_ms=times.get("linear"),
        in_features=group.in_features,
    )
