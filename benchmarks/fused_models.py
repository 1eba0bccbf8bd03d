"""Times whole models on a GPU: eager, torch.compile, and fusegen with eager or Inductor for the rest.

python benchmarks/fused_models.py FOLDER_OF_PACKAGES [NAME …]

Each model runs a forward pass without gradients, and a forward and a backward pass, in bfloat16 (convolutions
in float32 with TF32). All subjects run in one process, in turn; medians of the GPU's time, in microseconds,
with the host ahead of the GPU.
"""

from __future__ import annotations

import copy
import functools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from versions import timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from shared.model_zoo import Cell, Decoder, Diffusion, Gpt, Residual, Unet

from fusegen.models import FusegenBackend

ROUNDS, WARM = 15, 4
#: How long the GPU waits before a call: a whole model has hundreds of launches.
CYCLES = 20_000_000


class Stack(nn.Module):
    """Blocks one after the other, with the same further inputs."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        """Return what the last block returns."""
        for block in self.blocks:
            x = block(x, *rest)
        return x


def models() -> dict[str, tuple[nn.Module, list[tuple[int, ...]], torch.dtype]]:
    """Return each model with the shapes of its inputs and its dtype."""
    half, single = torch.bfloat16, torch.float32
    return {
        "decoder": (Stack(*(Decoder(2048, 16) for _ in range(4))), [(4, 2048, 2048)], half),
        "gpt": (Stack(*(Gpt(1024, 16) for _ in range(4))), [(8, 1024, 1024)], half),
        "diffusion": (
            Stack(*(Diffusion(1152) for _ in range(4))),
            [(16, 1024, 1152), (16, 1152)],
            half,
        ),
        "cell": (Cell(1024), [(8192, 1024)] * 3, half),
        "residual": (Stack(*(Residual(64) for _ in range(4))), [(64, 64, 56, 56)], single),
        "unet": (Stack(*(Unet(128) for _ in range(3))), [(16, 128, 64, 64), (16, 16)], single),
    }


def forward(model: Callable[..., Any], inputs: list[Tensor]) -> Any:
    """Return the model's value, without gradients."""
    with torch.no_grad():
        return model(*inputs)


def step(model: Callable[..., Any], inputs: list[Tensor]) -> None:
    """Run a forward and a backward pass, with random cotangents."""
    given = [t.detach().requires_grad_() for t in inputs]
    out = model(*given)
    outs = [out] if isinstance(out, Tensor) else list(out)
    torch.autograd.backward(outs, [o.detach() for o in outs])


def subjects(model: nn.Module, folder: Path) -> dict[str, tuple[Callable[..., Any], Any]]:
    """Return what is timed by name, each with its back end."""
    found: dict[str, tuple[Callable[..., Any], Any]] = {"eager": (model, None)}
    found["compile"] = (torch.compile(copy.deepcopy(model)), None)
    for rest in ("eager", "inductor"):
        backend = FusegenBackend(folder, 1, rest=rest)  # for both passes
        found[f"fusegen+{rest}"] = (torch.compile(copy.deepcopy(model), backend=backend), backend)
    return found


def main() -> None:
    """Print a line for each model and subject."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    folder, chosen = Path(sys.argv[1]), sys.argv[2:]
    for name, (model, shapes, dtype) in models().items():
        if chosen and name not in chosen:
            continue
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = model.cuda().to(dtype).train()
        inputs = [torch.randn(s, device="cuda", dtype=dtype) for s in shapes]
        compared = subjects(model, folder)
        for what, call in (("forward", forward), ("forward + backward", step)):
            model.train(what != "forward")
            for subject, _ in compared.values():
                getattr(subject, "_orig_mod", subject).train(what != "forward")
                for _ in range(WARM):
                    call(subject, inputs)
            times: dict[str, list[float]] = {key: [] for key in compared}
            for _ in range(ROUNDS):
                for key, (subject, _) in compared.items():
                    times[key].append(timed(functools.partial(call, subject, inputs), None, CYCLES))
            medians = {key: statistics.median(t) for key, t in times.items()}
            row = ", ".join(f"{k} {medians[k]:.0f}" for k in medians)
            ratio = ", ".join(
                f"{k} {medians[k] / medians['compile']:.3f}" for k in medians if k != "compile"
            )
            print(
                f"{name} {str(dtype)[6:]} {what}: {row} us; of torch.compile: {ratio}", flush=True
            )
        print(compared["fusegen+eager"][1].report, flush=True)


main()
