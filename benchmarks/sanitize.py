"""Calls kernels in every form on a GPU: for compute-sanitizer to watch, or to hold their values and bits.

    python benchmarks/sanitize.py parts NAME...                # how many parts each spec's calls have
    python benchmarks/sanitize.py call PACKAGES NAME [PART]    # under compute-sanitizer: all calls, or a part
    python benchmarks/sanitize.py values PACKAGES NAME         # values, bits, and which kernels ran
    python benchmarks/sanitize.py forms FILE...                # whether every form ran, from those outputs
    python benchmarks/sanitize.py raced ALL FILE...            # likewise, in the parts that racecheck ended

NAME is a spec of benchmarks/forms, and PACKAGES the folder where they are built. Every tensor is copied from
the host, and every result to it: initcheck then knows each number that was written, and by whom. `values`
fills each new tensor with NaN first, so that an element that no kernel writes is found.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import sanitize_windows
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import fusegen
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from fusegen.tools.check.compare import Case, each

ROOT = Path(__file__).resolve().parent.parent
#: The calls of each spec: rows that some lanes, a warp, a block, a large one, several or none can hold, in
#: accesses of 16 bytes and one element at a time (choose_rows.cuh).
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "norm_of_rows": [
        *[
            (1, 1),
            (5, 33),
            (9, 40),
            (300, 15),
            (33, 541),
            (3, 993),
            (2, 3971),
            (2, 7937),
            (2, 15873),
        ],
        *[(5, 256), (5, 704), (3, 4096), (3, 8192), (2, 16384), (2, 2**15 + 8), (2, 40_000)],
        *[(2, 40_001), (2, 2**17), (2, 2**18), (1, 2**19)],
    ],
    "softmax_of_rows": [
        *[
            (5, 33),
            (7, 40),
            (300, 17),
            (5, 500),
            (3, 2048),
            (3, 4096),
            (2, 4097),
            (2, 8192),
            (2, 16384),
        ],
        *[(2, 2**16), (2, 2**17), (1, 2**18 + 4), (2, 40_001)],
    ],
    "classes_of_rows": [
        *[(9, 33), (9, 256), (9, 1000), (5, 4096), (3, 16384), (3, 2**15 + 8), (2, 2**16)],
        *[(2300, 4096), (2300, 4099), (2, 70_001), (1, 2**19)],
    ],
    "norm_of_groups": [
        *[
            (3, 16, 1, 1),
            (2, 16, 3, 3),
            (3, 16, 4, 4),
            (2, 16, 9, 33),
            (2, 16, 32, 64),
            (2, 16, 64, 64),
        ],
        *[
            (2, 16, 65, 129),
            (1, 16, 128, 512),
            (1, 16, 128, 515),
            (1, 16, 2, 333),
            (9, 16, 128, 128),
        ],
    ],
    "norm_of_groups_by_sample": [
        *[(3, 16, 1, 1), (2, 16, 3, 3), (9, 16, 4, 4), (2, 16, 9, 33), (2, 16, 64, 64)],
        *[(1, 16, 2, 333), (1, 16, 128, 515), (33, 16, 32, 33)],
    ],
    "sum_and_norm_of_groups": [
        *[(3, 16, 1, 1), (2, 16, 3, 3), (2, 16, 9, 33), (2, 16, 64, 64), (1, 16, 128, 515)],
        *[(9, 16, 128, 128), (1, 16, 201, 401)],
    ],
    "cheap_norm_of_groups": [
        *[(3, 16, 1, 1), (2, 16, 4, 4), (2, 16, 7, 9), (2, 16, 32, 64), (2, 16, 100, 100)],
        *[(1, 16, 200, 400), (1, 16, 201, 401), (1, 16, 512, 512)],
    ],
    "norm_of_columns": [
        *[(5, 24, 3, 3), (2, 24, 16, 16), (33, 24, 1, 1), (300, 24, 5, 7), (1001, 24, 1, 3)],
    ],
    "columns": [(1, 1), (5, 33), (64, 64), (3, 4096), (300, 1001), (33, 100), (1030, 2056)],
    "elements": [(1, 1), (1, 7), (3, 1000), (65, 1025), (2, 4096), (513, 4096)],
    "channels": [
        *[(2, 3, 5, 7), (1, 64, 7, 7), (5, 8, 1, 1), (1023, 7, 1, 1), (3, 65, 5, 7), (2, 64, 8, 8)],
        *[(31, 3, 31, 33), (2, 64, 129, 131)],
    ],
    "rows": [(3, 64, 5, 7), (2, 64, 33, 65), (1, 3, 9, 64), (2, 4, 2, 1), (5, 24, 4, 8)],
    "softmax_of_channels": [
        *[(2, 3, 4, 4), (3, 33, 5, 7), (2, 300, 9, 1), (2, 1025, 3, 3), (2, 64, 16, 16)],
        *[(2, 5000, 4, 8), (1, 9000, 1, 3)],
    ],
    "halves": [(5, 66), (9, 128), (3, 8192), (31, 200)],
    "pairs": [(31, 6), (33, 66), (300, 64), (5, 2048), (5, 8198), (2, 40_000)],
    "dropped_rows": [(5, 33), (9, 64), (3, 4096), (2, 2**16)],
}
#: Tensors of up to so many elements are also called with gaps between their rows.
FEW = 200_000
#: Calls of up to so many elements together are one part: racecheck takes a minute or two for it.
PART = 100_000
#: The spec whose package is there for the kernels of windows, which are no forms of a chain.
WINDOWS = "windows"
#: What a call's name then says, before the width of a gap.
GAPS = " with gaps of "
#: How threads hold a row, as `Holders` in team.cuh counts them.
HOLDERS = ("lanes", "block", "cluster")
#: Forms that hold rows in several ways, and the ways.
WAYS = {
    "tiled": ("lanes", "block"),
    "single": ("lanes", "block"),
    "resident": HOLDERS,
    "staged": ("block", "cluster"),
    "streamed": ("block", "cluster"),
}


def cases(chain: Chain, shapes: list[tuple[int, ...]]) -> Iterator[tuple[str, Case]]:
    """Give the calls, on the host: contiguous, channels-last, and as parts of wider tensors; in each mode."""
    for shape in shapes:
        for training in (False, True) if len(chain.modes) == 2 else (False,):
            case = verify.make_case(chain, shape, training=training)
            yield f"{shape}", case
            if len(shape) == 4:
                yield f"{shape} channels-last", replace(case, x=_channels_last(case.x))
            if case.x.numel() <= FEW:
                for width in (8, 3):  # rows that accesses of 16 bytes can read, and others
                    yield (
                        f"{shape} of a tensor wider by {width}",
                        replace(case, x=_part(case.x, width)),
                    )


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _part(x: Tensor, width: int) -> Tensor:
    """Return x with gaps between its rows; of an image, channels-last."""
    if x.dim() == 4:
        rows = x.movedim(1, -1)
        return torch.cat([rows, rows.new_ones(*rows.shape[:-1], width)], -1)[
            ..., : x.shape[1]
        ].movedim(-1, 1)
    return torch.cat([x, x.new_ones(*x.shape[:-1], width)], -1)[..., : x.shape[-1]]


def _moved(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a tensor and its gaps to the GPU, into an allocation that ends with its last element.

    It ends with the 16 bytes of that element: compute-sanitizer takes an asynchronous copy of fewer bytes,
    whose number is in the address's lowest bits, for one of 16.
    """
    size = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    flat = torch.as_strided(tensor, (size,), (1,))
    flat = flat.to(dtype) if tensor.is_floating_point() else flat
    allocated = flat.new_empty(-(-size * flat.itemsize // 16) * 16 // flat.itemsize, device="cuda")
    allocated[:size] = flat.cuda()
    return allocated.as_strided(tensor.shape, tensor.stride())


def call(chain: Chain, package: ModuleType, case: Case) -> list[Tensor]:
    """Call every kernel of an order: 1 package; return the values and gradients, on the host."""
    dtype = getattr(torch, chain.spec.dtypes[0])
    moving = [True, *(o.differentiable for o in chain.operands)]
    tensors = [_moved(t, dtype) for t in (case.x, *case.operands.values())]
    named = dict(zip(case.operands, tensors[1:], strict=True))
    found = [t.cpu() for t in each(package.apply(tensors[0], **named, **case.options))]
    leaves = [t.detach().requires_grad_(m) for t, m in zip(tensors, moving, strict=True)]
    named = dict(zip(case.operands, leaves[1:], strict=True))
    values = each(package.apply(leaves[0], **named, **case.options))
    generator = torch.Generator().manual_seed(1)
    along = [torch.randn(v.shape, generator=generator) for v in values]
    if case.x.dim() == 4 and case.x.is_contiguous():  # a cotangent that is copied
        along = [_channels_last(a) if a.dim() == 4 else a for a in along]
    along = [_moved(a, dtype) for a in along]
    wanted = [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves]
    found += [t.detach().cpu() for t in (*values, *torch.autograd.grad(values, wanted, along))]
    return found


def parts_of(name: str, chain: Chain) -> list[list[int]]:
    """Return the numbers of a spec's calls by parts, the smallest calls first."""
    if name == WINDOWS:
        return [[0]]
    sizes = {n: case.x.numel() for n, (_, case) in enumerate(cases(chain, SHAPES[name]))}
    parts: list[list[int]] = [[]]
    for n in sorted(sizes, key=lambda n: sizes[n]):
        if parts[-1] and sum(sizes[m] for m in [*parts[-1], n]) > PART:
            parts.append([])
        parts[-1].append(n)
    return parts


def watch(name: str, packages: Path, part: int | None) -> None:
    """Call a spec's package in each of its forms: in all calls, or in those of a part."""
    chain, package = _load(name, packages)
    if name == WINDOWS:
        print(f"{sanitize_windows.watch()} calls")
        return
    chosen = None if part is None else parts_of(name, chain)[part]
    count = 0
    for n, (_, case) in enumerate(cases(chain, SHAPES[name])):
        if chosen is None or n in chosen:
            count += 1
            call(chain, package, case)
    torch.cuda.synchronize()
    print(f"{count} calls")


def hold(name: str, packages: Path) -> int:
    """Hold values against float64, and a second call's bits against the first's; print the forms that ran."""
    chain, package = _load(name, packages)
    torch.use_deterministic_algorithms(True, warn_only=True)  # it fills new tensors with NaN
    dtype = getattr(torch, chain.spec.dtypes[0])
    wrong: list[str] = []
    without_gaps: list[Tensor] = []
    count = 0
    kernels: set[str] = set()
    by_call: list[set[str]] = []
    if name == WINDOWS:
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            count, wrong = sanitize_windows.hold()
        kernels.update(event.key for event in seen.key_averages())
        by_call.append(set(filter(None, map(form_of, kernels))))
    for what, case in cases(chain, SHAPES.get(name, [])):
        count += 1
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            first = call(chain, package, case)
        ran = {event.key for event in seen.key_averages()}
        by_call.append({form for kernel in ran if (form := form_of(kernel))})
        kernels.update(ran)
        again = call(chain, package, case)
        if any(not torch.equal(_bits(a), _bits(b)) for a, b in zip(first, again, strict=True)):
            wrong.append(f"{what}: a second call gives other bits")
        if GAPS in what:  # `compare` would copy it
            wrong += [f"{what}: {error}" for error in _differ(first, without_gaps)]
            continue
        without_gaps = first
        on_gpu = replace(
            case,
            x=_moved(case.x, torch.float64),
            operands={n: _moved(t, t.dtype) for n, t in case.operands.items()},
        )
        errors = verify.compare(package, chain, on_gpu, dtype)
        wrong += [f"{what}: {error}" for error in errors if not error.within]
    for kernel in sorted(filter(None, map(form_of, kernels))):
        print(f"form {kernel}")
    for n, ran in enumerate(by_call):
        print(f"call {n} of {name}: {'; '.join(sorted(ran))}")
    print(f"{count} calls, {len(wrong)} wrong")
    print("\n".join(wrong))
    return 1 if wrong else 0


def _spec(name: str) -> Path:
    return ROOT / "benchmarks" / "forms" / f"{name}.yaml"


def _load(name: str, packages: Path) -> tuple[Chain, ModuleType]:
    return pipeline.derive(_spec(name)), fusegen.load(name, packages)


def _differ(found: list[Tensor], wanted: list[Tensor]) -> Iterator[str]:
    """Say which results are further from those of another call than sums in another order may be."""
    for n, (got, true) in enumerate(zip(found, wanted, strict=True)):
        most = 8 * torch.finfo(got.dtype).eps * true.double().abs().max().item()
        if not (got.double() - true.double()).abs().max().item() <= most:
            yield f"result {n} differs from that of tensors without gaps"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def form_of(kernel: str) -> str | None:
    """Return a kernel's form, how it holds rows, and its numbers; None for a kernel that is not fusegen's.

    Numbers are the template's: elements of an access, accesses, threads, and so on.
    """
    found = re.search(r"fusegen::(?:\(anonymous namespace\)::)?(\w+)<(.*?)>\(", kernel)
    if not found:
        return None
    form, arguments = found[1], found[2]
    holder = re.search(r"Holders\)(\d)", arguments)
    numbers = re.findall(r"(?:^|, )(?:\(int\))?(\d+)\b(?!>)", arguments)
    way = f" {HOLDERS[int(holder[1])]}" if holder else ""
    return f"{form}{way} {','.join(numbers)}"


def forms() -> set[str]:
    """Return every form of kernel in fusegen's headers, with the ways in which it holds rows."""
    include = ROOT / "templates" / "include" / "fusegen"
    pattern = re.compile(
        r"__global__ void\s*(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\))?\s*(\w+)\("
    )
    names = {n for path in include.rglob("*.cuh") for n in pattern.findall(path.read_text())}
    return {f"{n} {way}".strip() for n in names for way in WAYS.get(n, ("",))}


def missing(files: list[Path]) -> set[str]:
    """Return the forms that no output of `values` names."""
    said = [line for file in files for line in file.read_text().splitlines()]
    ran = {
        line.removeprefix("form ").rpartition(" ")[0] for line in said if line.startswith("form ")
    }
    return forms() - ran


def not_raced(record: Path, files: list[Path]) -> Iterator[str]:
    """Say how many forms ran in calls that racecheck ended, and which did not.

    Args:
        record: the lines that gpu_sanitize.sh gives, "racecheck NAME PART: exit 0; ...".
        files: outputs of `values`, which say what ran in each call.
    """
    ended = re.findall(r"^racecheck (\w+) (\d+): exit 0", record.read_text(), re.MULTILINE)
    ran: dict[tuple[str, int], list[str]] = {}
    for number, name, forms in re.findall(
        r"^call (\d+) of (\w+): (.+)$", "".join(f.read_text() for f in files), re.MULTILINE
    ):
        ran[name, int(number)] = forms.split("; ")
    parts = {name: parts_of(name, pipeline.derive(_spec(name))) for name, _ in ended}
    raced = {
        form
        for name, part in ended
        for number in parts[name][int(part)]
        for form in ran.get((name, number), [])
    }
    every = {form for forms in ran.values() for form in forms}
    yield f"racecheck: {len(raced)} of {len(every)} forms with their numbers, in calls that it ended"
    yield from (f"not under racecheck: {form}" for form in sorted(every - raced))


def main() -> int:
    """Do what the command line says; 1 where something is wrong."""
    what, *given = sys.argv[1:]
    if what == "forms":
        left = missing([Path(file) for file in given])
        print(f"{len(forms()) - len(left)} of {len(forms())} forms ran")
        print("\n".join(f"no call reached {form}" for form in sorted(left)))
        return 1 if left else 0
    if what == "raced":
        print("\n".join(not_raced(Path(given[0]), [Path(file) for file in given[1:]])))
        return 0
    if what == "parts":
        for name in given:
            for part in range(len(parts_of(name, pipeline.derive(_spec(name))))):
                print(f"{name} {part}")
        return 0
    packages, name = Path(given[0]), given[1]
    if what == "values":
        return hold(name, packages)
    watch(name, packages, int(given[2]) if len(given) > 2 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
