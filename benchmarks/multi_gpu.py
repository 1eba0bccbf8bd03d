"""Generated modules on several devices: DDP, FSDP2, DTensor, and the right device and stream.

    python -m benchmarks.multi_gpu RECORD [--backend nccl|gloo] [--processes 2]

Each check compares with the eager model on the same devices and says what it saw; RECORD (JSON) gets the
machine, the versions, the command and every check's result. Exits 1 where a check fails. The specs are built
before (`fusegen build specs`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

from fusegen import load
from fusegen.models import backend

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from shared.by_torch import packages  # noqa: E402 (found by the path above)
from shared.originals import ORIGINALS  # noqa: E402 (likewise)

GENERATED = ROOT / "generated"
CHECKS: dict[str, Callable[[DeviceMesh], str]] = {}


def check(function: Callable[[DeviceMesh], str]) -> Callable[[DeviceMesh], str]:
    """Register a check: it raises where something is wrong, and else says what it saw."""
    CHECKS[function.__name__] = function
    return function


def module(name: str) -> type[nn.Module]:
    """Return the generated module of a spec."""
    found: type[nn.Module] = load(name, GENERATED).Module
    return found


def apply(name: str) -> Callable[..., Tensor]:
    """Return the generated function of a spec."""
    found: Callable[..., Tensor] = load(name, GENERATED).apply
    return found


def losses(model: nn.Module, mesh: DeviceMesh) -> list[float]:
    """Train for eight steps, each process on its part of the batch; return the mean losses."""
    device = mesh.device_type
    generator = torch.Generator().manual_seed(dist.get_rank())
    x = torch.randn(32, 24, generator=generator).to(device)
    target = torch.randn(32, 37, generator=generator).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        history.append(total.item() / dist.get_world_size())
    return history


def train_as_eager(mesh: DeviceMesh, wrap: Callable[[nn.Module], nn.Module]) -> str:
    """Train every reference model and its generated module; return the largest relative difference."""
    worst = 0.0
    for name, (original, arguments) in ORIGINALS.items():
        found = []
        for cls in (original, module(name)):
            torch.manual_seed(0)
            model = cls(*arguments)
            if name == "matmul_dropout_softmax":
                model.dropout.p = 0.0  # the bits are not torch's
            found.append(losses(wrap(model.to(mesh.device_type)), mesh))
        eager, fused = (torch.tensor(h) for h in found)
        torch.testing.assert_close(
            fused, eager, rtol=1e-5, atol=0, msg=lambda m, n=name: f"{n}: {m}"
        )
        if not eager[-1] < eager[0]:
            raise AssertionError(f"{name}: the eager model does not learn: {found[0]}")
        worst = max(worst, float(((fused - eager) / eager).abs().max()))
    return f"{len(ORIGINALS)} models, 8 steps, losses within {worst:.1e} of eager's"


@check
def distributed_data_parallel(mesh: DeviceMesh) -> str:
    """Gradients are averaged by DistributedDataParallel."""
    return train_as_eager(mesh, DistributedDataParallel)


@check
def fully_sharded(mesh: DeviceMesh) -> str:
    """Parameters are sharded by fully_shard (FSDP2)."""
    return train_as_eager(mesh, lambda model: fully_shard(model, mesh=mesh))


class Block(nn.Module):
    """A model that torch.compile captures, in two buckets of DDP."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 400), nn.Linear(400, 400)
        self.norm = nn.LayerNorm(400)

    def forward(self, x: Tensor) -> Tensor:
        """Return a norm of a gate."""
        h = nn.functional.gelu(self.first(x)) * 2
        return self.norm(torch.tanh(self.second(h)) + h)


@check
def models_that_are_captured(mesh: DeviceMesh) -> str:
    """The back end of torch.compile, around DDP and fully_shard; torch computes the specs."""
    backend.packages_of = packages
    seen = []
    for wrap in (
        lambda model: DistributedDataParallel(model, bucket_cap_mb=1),
        lambda model: fully_shard(model, mesh=mesh),
    ):
        found, reports = [], []
        for fused in (False, True):
            torch.manual_seed(0)
            torch._dynamo.reset()
            model = wrap(Block().to(mesh.device_type).double())
            used = backend.FusegenBackend(everything=True)
            call = torch.compile(model, backend=used) if fused else model
            torch.manual_seed(1 + mesh.get_rank())
            x = torch.randn(8, 16, dtype=torch.float64, device=mesh.device_type)
            call(x).square().sum().backward()
            grads = [p.grad for p in model.parameters()]
            found.append([g.full_tensor() if isinstance(g, DTensor) else g for g in grads])
            reports.append(used.report)
        for got, wanted in zip(*reversed(found), strict=True):
            torch.testing.assert_close(got, wanted)
        assert reports[1].fused
        seen.append(f"{len(reports[1].fused)} regions in {reports[1].graphs} graphs")
    return "DDP: {}; fully_shard: {}".format(*seen)


@check
def submodules_fully_sharded(mesh: DeviceMesh) -> str:
    """Each submodule is sharded by itself, and gathers its parameters when it is called; then the rest."""

    def wrap(model: nn.Module) -> nn.Module:
        for part in model.children():
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    return train_as_eager(mesh, wrap)


def sharded_run(
    name: str, mesh: DeviceMesh, dim: int, operands: list[tuple[Tensor, Shard | Replicate]]
) -> tuple[int, list[Tensor], list[object]]:
    """Run a chain forward and backward on x sharded by a dim, and whole; compare results and gradients.

    Returns:
        How many collectives ran, the sharded gradients, and their placements.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 10, generator=generator, dtype=torch.float64).to(mesh.device_type)
    whole = [t.clone().requires_grad_() for t in (x, *(t for t, _ in operands))]
    out = apply(name)(*whole)
    cotangent = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
    wanted = torch.autograd.grad(out, whole, cotangent)
    placements = [Shard(dim), *(p for _, p in operands)]
    parts = [
        distribute_tensor(t.detach(), mesh, [p]).requires_grad_()
        for t, p in zip(whole, placements, strict=True)
    ]
    pulled = distribute_tensor(cotangent, mesh, [Shard(dim)])
    with CommDebugMode() as communication:
        got = apply(name)(*parts)
        gradients = torch.autograd.grad(got, parts, pulled)
    torch.testing.assert_close(got.full_tensor(), out)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a.full_tensor(), b)
    return (
        communication.get_total_counts(),
        list(gradients),
        [g.placements for g in gradients],
    )


def column(mesh: DeviceMesh) -> Tensor:
    """Return a column operand of ten numbers."""
    return torch.linspace(-1, 1, 10, dtype=torch.float64).to(mesh.device_type)


@check
def rows_of_a_dtensor(mesh: DeviceMesh) -> str:
    """A softmax sharded by rows runs where its rows are; a bias's gradient is a partial sum."""
    bias = column(mesh)
    count, _, placements = sharded_run("matmul_gelu_softmax", mesh, 0, [(bias, Replicate())])
    if count or placements != [(Shard(0),), (Partial(),)]:
        raise AssertionError(f"{count} collectives, gradients placed {placements}")
    return "forward and backward without a collective; the gradient of the bias is Partial"


@check
def columns_of_a_dtensor(mesh: DeviceMesh) -> str:
    """A pointwise chain sharded by columns runs where they are, with its bias sharded too."""
    value = column(mesh)
    count, _, placements = sharded_run(
        "matmul_add_swish_tanh_gelu_hardtanh", mesh, 1, [(value, Shard(0)), (value + 1, Shard(0))]
    )
    if count or placements != [(Shard(1),), (Shard(0),), (Shard(0),)]:
        raise AssertionError(f"{count} collectives, gradients placed {placements}")
    return "forward and backward without a collective; gradients of column operands are sharded"


@check
def columns_that_a_row_needs(mesh: DeviceMesh) -> str:
    """A softmax of columns on several devices is gathered, and right."""
    scale = torch.tensor([1.5], dtype=torch.float64).to(mesh.device_type)
    count, _, _ = sharded_run("scale_softmax", mesh, 1, [(scale, Replicate())])
    if not count:
        raise AssertionError("a row on two devices was reduced without a collective")
    return f"right, with {count} collectives"


@check
def dropout_of_a_dtensor(mesh: DeviceMesh) -> str:
    """Shards draw different bits, in the backward those of the forward."""
    x = torch.full((2 * mesh.size(), 500), 40.0).to(mesh.device_type)
    bias = torch.zeros(500).to(mesh.device_type)
    part = distribute_tensor(x, mesh, [Shard(0)]).requires_grad_()
    shared = distribute_tensor(bias, mesh, [Replicate()])
    out = apply("matmul_dropout_softmax")(part, shared, dropout_p=0.5, training=True, seed=7)
    cotangent = distribute_tensor(torch.randn_like(x), mesh, [Shard(0)])
    (gradient,) = torch.autograd.grad(out, part, cotangent)
    whole = out.full_tensor()
    dropped = whole < whole.amax() / 2
    if torch.equal(dropped[:2], dropped[2:4]):
        raise AssertionError("two shards dropped the same elements")
    if not torch.equal(gradient.full_tensor() == 0, dropped):
        raise AssertionError("the backward dropped other elements than the forward")
    return f"{dropped.double().mean():.3f} dropped at p = 0.5"


@check
def device_and_stream(mesh: DeviceMesh) -> str:
    """Kernels run on the device of their tensors and on its current stream, whatever is current elsewhere."""
    if mesh.device_type != "cuda" or torch.cuda.device_count() < 2:
        return "not on this machine: it needs two GPUs"
    bias = torch.zeros(256)
    for other in range(torch.cuda.device_count()):
        with torch.cuda.device((other + 1) % torch.cuda.device_count()):
            x = torch.full((64, 256), -5.0, device=f"cuda:{other}")
            value = torch.randn(64, 256, device=x.device)
            stream = torch.cuda.Stream(other)
            torch.cuda.synchronize(other)
            with torch.cuda.stream(stream):
                torch.cuda._sleep(200_000_000)  # 0.1 s: a kernel on another stream reads the old x
                x.copy_(value)
                leaf = x.requires_grad_()
                out = apply("matmul_gelu_softmax")(leaf, bias.to(x.device))
                (gradient,) = torch.autograd.grad(out, leaf, value)
            torch.cuda.synchronize(other)
        expected = value.requires_grad_()
        wanted = nn.functional.softmax(nn.functional.gelu(expected), dim=1)
        (slope,) = torch.autograd.grad(wanted, expected, value.detach())
        if out.device != x.device:
            raise AssertionError(f"x on {x.device}, the result on {out.device}")
        torch.testing.assert_close(out, wanted)
        torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)
    return (
        f"on {torch.cuda.device_count()} devices, each while another was current, on a side stream"
    )


def worker(rank: int, processes: int, backend: str, port: int, folder: str) -> None:
    """Run every check in one process of the group; write what each saw, or its error."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    kind = "cuda" if backend == "nccl" else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        backend, rank=rank, world_size=processes, timeout=datetime.timedelta(seconds=120)
    )
    mesh = init_device_mesh(kind, (processes,))
    results = {}
    for name, function in CHECKS.items():
        try:
            results[name] = {"passed": True, "saw": function(mesh)}
        except Exception:  # a check may fail in any way; the record says how
            results[name] = {"passed": False, "saw": traceback.format_exc()}
        Path(folder, f"{rank}.json").write_text(json.dumps(results))
        dist.barrier()
    dist.destroy_process_group()


def run(backend: str, processes: int) -> dict[str, dict[str, object]]:
    """Run the checks in a group of processes; return each check's result, failed where any process's is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        try:
            torch.multiprocessing.spawn(
                worker, args=(processes, backend, port, folder), nprocs=processes
            )
        except torch.multiprocessing.ProcessExitedException as error:
            print(error, file=sys.stderr)
        written = [json.loads(p.read_text()) for p in sorted(Path(folder).glob("*.json"))]
    lost = {"passed": False, "saw": "a process ended before this check did"}
    results = {}
    for name in CHECKS:
        each = [w.get(name, lost) for w in written] + [lost] * (processes - len(written))
        results[name] = next((r for r in each if not r["passed"]), each[0])
    return results


def machine(backend: str) -> dict[str, object]:
    """Return what ran the checks."""
    versions: dict[str, object] = {"python": platform.python_version(), "torch": torch.__version__}
    if backend == "nccl":
        versions["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        versions["cuda"] = torch.version.cuda
        versions["gpus"] = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return versions


def main() -> int:
    """Run all checks and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("--backend", choices=["nccl", "gloo"], default="nccl")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    results = run(given.backend, given.processes)
    record = {
        "machine": machine(given.backend),
        "command": f"python -m benchmarks.multi_gpu {' '.join(sys.argv[1:])}",
        "date": datetime.date.today().isoformat(),
        "backend": given.backend,
        "processes": given.processes,
        "checks": results,
    }
    given.record.write_text(json.dumps(record, indent=1) + "\n")
    for name, result in results.items():
        print(f"{'passed' if result['passed'] else 'FAILED'}  {name}: {result['saw']}")
    return 0 if all(r["passed"] for r in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
