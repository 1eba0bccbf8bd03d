"""A small physics-informed network: its loss contains second derivatives, so a step needs the third.

    python examples/pinn.py [--steps 400] [--record docs/pinn.json]

Solves -(u_xx + u_yy) = f on the unit square, u = 0 on its border, with f such that
u = sin(pi x) sin(pi y). The network is N(x, y), u = 16 x (1-x) y (1-y) N, the loss the mean square of the
equation at random points (Raissi et al. 2019, doi:10.1016/j.jcp.2018.10.045). The same network is trained
with the generated activation `swish_tanh_mish` (order 3) and with torch's own functions, from the same seed,
in turns; torch.compile is asked too, and its answer recorded. Writes RECORD, a plot beside it, and the table
in docs/pinn.md.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import fusegen

ROOT = Path(__file__).resolve().parent.parent
WIDTH, DEPTH, POINTS = 128, 3, 1024


class Eager(nn.Module):
    """The activation by torch's own functions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation at x."""
        return functional.mish(torch.tanh(functional.silu(x)))


def network(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Return the network; the seed decides its parameters."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(2, WIDTH), activation()]
    for _ in range(DEPTH - 1):
        layers += [nn.Linear(WIDTH, WIDTH), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1))


def solution(points: Tensor) -> Tensor:
    """Return the exact solution at points [n, 2]."""
    return torch.sin(math.pi * points).prod(dim=1)


def trial(model: nn.Module, points: Tensor) -> Tensor:
    """Return the network's solution at points [n, 2]; it is zero on the border."""
    inside = (points * (1 - points)).prod(dim=1)
    out: Tensor = 16 * inside * model(points).squeeze(1)
    return out


def loss_at(model: nn.Module, points: Tensor) -> Tensor:
    """Return the mean square of u_xx + u_yy + f, by reverse mode twice."""
    points = points.clone().requires_grad_()
    (slope,) = torch.autograd.grad(trial(model, points).sum(), points, create_graph=True)
    bends = [
        torch.autograd.grad(slope[:, axis].sum(), points, create_graph=True)[0][:, axis]
        for axis in range(2)
    ]
    source = 2 * math.pi**2 * solution(points)
    return ((bends[0] + bends[1] + source) / (2 * math.pi**2)).square().mean()


class Training:
    """One network in training: its steps, their times, its error."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.device = model.to(device), device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        self.points = torch.Generator().manual_seed(1)
        self.milliseconds: list[float] = []
        self.errors: list[tuple[int, float]] = []

    def step(self) -> None:
        """Take a step of Adam at new random points."""
        points = torch.rand(POINTS, 2, generator=self.points).to(self.device)
        started = time.perf_counter()
        self.optimizer.zero_grad()
        loss_at(self.model, points).backward()
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.milliseconds.append(1e3 * (time.perf_counter() - started))

    def measure(self) -> None:
        """Note the relative L2 error on a grid."""
        axis = torch.linspace(0, 1, 65, device=self.device)
        grid = torch.cartesian_prod(axis, axis)
        with torch.no_grad():
            wanted = solution(grid)
            error = (trial(self.model, grid) - wanted).norm() / wanted.norm()
        self.errors.append((len(self.milliseconds), error.item()))


def what_compile_says(device: str) -> str:
    """Return how torch.compile takes the same step: the first line of its error, or that it works."""
    model = torch.compile(network(Eager).to(device))
    try:
        loss_at(model, torch.rand(POINTS, 2).to(device)).backward()
    except RuntimeError as error:  # this is what is asked for
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "works"


def table(record: dict[str, Any]) -> str:
    """Return the record as the table of docs/pinn.md."""
    lines = [
        "| activation | ms a step | relative L2 error |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {run['ms_per_step']:.2f} | {run['errors'][-1][1]:.1e} |"
            for name, run in record["runs"].items()
        ),
        f"| torch.compile | - | {record['torch_compile']} |",
    ]
    where = record["machine"]
    return "\n".join(
        [*lines, "", f"{where['device']}, torch {where['torch']}, {record['steps']} steps."]
    )


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw the error over the time that was spent on steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pinn"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, run in record["runs"].items():
        steps, errors = zip(*run["errors"], strict=True)
        axes.semilogy([s * run["ms_per_step"] / 1e3 for s in steps], errors, label=name)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("relative L2 error of u")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Train both networks in turns; write the record, the plot and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--record", type=Path, default=ROOT / "docs" / "pinn.json")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    built = fusegen.load("swish_tanh_mish", ROOT / "generated")
    runs = {
        "fusegen": Training(network(built.Module), given.device),
        "eager": Training(network(Eager), given.device),
    }
    for number in range(given.steps):
        for run in runs.values():
            if number % 20 == 0:
                run.measure()
            run.step()
    for run in runs.values():
        run.measure()
    device = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor()
    if given.device == "cpu":
        device = f"{device or platform.machine()}, {torch.get_num_threads()} threads"
    record = {
        "machine": {"device": device, "torch": torch.__version__},
        "command": f"python examples/pinn.py --steps {given.steps} --device {given.device}",
        "steps": given.steps,
        "network": {"width": WIDTH, "depth": DEPTH, "points": POINTS},
        "runs": {
            name: {"ms_per_step": statistics.median(run.milliseconds), "errors": run.errors}
            for name, run in runs.items()
        },
        "torch_compile": what_compile_says(given.device),
    }
    given.record.write_text(json.dumps(record, indent=1) + "\n")
    plot(record, given.record.with_suffix(".svg"))
    page = given.record.with_suffix(".md")
    if page.exists():
        before, _, rest = page.read_text().partition("<!-- pinn -->")
        _, _, after = rest.partition("<!-- /pinn -->")
        page.write_text(f"{before}<!-- pinn -->\n{table(record)}\n<!-- /pinn -->{after}")
    print(table(record))


if __name__ == "__main__":
    main()
