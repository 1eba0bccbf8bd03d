"""Specs whose operands, arguments and steps have names that generated code has too, and what they compute."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor

from fusegen.spec.names import problem
from fusegen.toolchain import compilers, pipeline

#: What a spec's names could not be while they stood in the kernels as they are, by the reason that was given.
KERNELS = """
    BLOCKS HOLDERS ITEMS K S T THREADS V access accesses across activation ahead all_rows allows
    alone apart args at base begin after beside block block_items blocks body bytes c channel
    channel_run channels cluster_items col column columns count cycle down dtype dynamic each end
    exchange exists fetch first first_column first_of_block flight fold follow full further gap
    grid group groups held here holds i inner item items j kept kernel known lanes last launch light
    live load matrix mine more most n needs next of offset one out own part partial piece place places
    plan policy power r register_each rescale resident row row_at row_count row_goes_on run runs
    sample scalar shared singly rows_apart soon square stage start step store stored strand strands stream
    stride sums task team thread threads tile tiles tiling to total v visit walk warp whole wide
    widest width workspace y
""".split()  # noqa: SIM905
CPP = """
    alignas alignof and_eq asm atomic_cancel atomic_commit auto bitand bitor bool case catch char char16_t
    char8_t co_await co_return compl concept const const_cast consteval constexpr constinit
    decltype default delete do double dynamic_cast enum explicit export extern false float friend
    goto inline int long mutable namespace new noexcept not_eq nullptr operator or_eq private
    protected public reflexpr register reinterpret_cast requires restrict short signed sizeof
    static static_assert static_cast struct switch synchronized template this thread_local throw
    true typedef typeid typename typeof union unsigned using virtual void volatile wchar_t
    xor xor_eq errno linux unix stdin stdout stderr NULL EOF NAN INFINITY HUGE_VAL HUGE_VALF I
    offsetof major minor signbit isnan isinf isfinite threadIdx blockIdx blockDim gridDim warpSize
""".split()  # noqa: SIM905
FORMULAS = """
    abs amax amin cos erf exp expm1 log log1p log_softmax logsumexp max mean min norm normcdf normpdf
    rsqrt sech2 sign sigmoid sin softmax softplus sqrt std sum tanh var where pi expr rows cols fold_
    beta gamma zeta E N O Q C Symbol oo zoo nan inf Integer Float
""".split()  # noqa: SIM905
MADE = """
   
    a_ a_v a_out a_sum a_sums a_row a_total a_whole a_partial a_all a_raw a_next a_near a_warp a_thread
    a_fitted a_blocks a_memory a_spread a_terms a_half a_part2 a_gap a_pair_gap a_after a_from a_following
    a_place a_staged a_held a_live kept_a
    live_a reduced_a lanes_a grad_a grad_x grad_y tangent_x d_x is_x a a_2 _a a__b user_a user_offset
    forward backward double_backward Forward ForwardArgs Backward forward_value row0 row1 stage0 stage1
    _shared0     Full Col Row Scalar Kept Live Out Math Functions fusegen Tensor Module
    ValueError Chain Mode Operator Operand weight_ unbiased_ batch_weight Sequence
    call stack operators registered tensor number integer returns Call Activation Registered
""".split()  # noqa: SIM905
#: Names that a package's own Python code uses: only steps may have them.
OF_PYTHON = ["_chain", "_segment1", "_segment2"]
#: Names that Python takes, of other alphabets and of many lengths.
FOREIGN = """
    größe größe_out grosse é ñ_1 température λ μ σ2 重み バイアス вес Ξ _ _x1 a1 A AB aB
""".split()  # noqa: SIM905
ALL = list(dict.fromkeys([*KERNELS, *CPP, *FORMULAS, *MADE, *OF_PYTHON, *FOREIGN]))

#: The forms of kernels: what a spec says before its steps, its last steps, and the shape of x.
FORMS: dict[str, tuple[str, list[object], tuple[int, ...]]] = {
    "pointwise": ("", [], (5, 11)),
    "rows": ("", ["softmax"], (5, 11)),
    "image": ("dims: 4\n", [{"softmax": {"dim": 1}}], (2, 3, 2, 5)),
    "segments": ("dims: 3\n", [{"softmax": {"dim": 2}}, {"softmax": {"dim": 1}}], (2, 3, 5)),
}


def roles(names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return which names are operands, float arguments and steps: a third each, the first two no fewer.

    Arguments are attributes of a Module, which has some of its own.
    """
    count = len(names) // 3
    others = [name for name in names if name not in OF_PYTHON]
    arguments = [
        name for name in others[1::2] if problem(name, attribute=True, argument=True) is None
    ][:count]
    rest = [name for name in others if name not in arguments]
    steps = rest[: min(count, len(arguments)) - len(names) + len(others)]
    steps += [name for name in names if name in OF_PYTHON]
    return [name for name in rest if name not in steps], arguments, steps


def spec_text(names: Sequence[str], form: str) -> str:
    """Return a spec that uses names for operands, float arguments and steps in turn."""
    head, tail, _ = FORMS[form]
    operands, arguments, steps = roles(names)
    kinds = ("col", "full", "scalar") if form == "pointwise" else ("col", "row", "full", "scalar")
    if form in ("image", "segments"):
        kinds = ("row", "full", "scalar")
    chain: list[object] = []
    for place, formula in enumerate(formulas(names)):
        chain.append({"expr": {"formula": formula, "name": steps[place]}})
    chain += tail
    if form == "segments":  # values of the first segment, in the last one
        chain.append({"expr": f"x + {steps[1]} * {steps[0]}"})
    text: dict[str, object] = {
        "order": 1,
        "operands": {n: kinds[i % len(kinds)] for i, n in enumerate(operands)},
        "arguments": dict.fromkeys(arguments, "float"),
        "chain": chain,
    }
    return head + yaml.safe_dump(text, allow_unicode=True, sort_keys=False, width=1000)


def formulas(names: Sequence[str]) -> list[str]:
    """Return the formula of each step."""
    operands, arguments, steps = roles(names)
    found = []
    for place in range(len(steps)):
        before = f" + 0.25 * {steps[place - 1]}" if place else ""
        found.append(f"0.5 * x + {operands[place]} * tanh({arguments[place]}){before}")
    rest = operands[len(steps) :], arguments[len(steps) :]
    found[-1] += "".join(f" + {name}" for part in rest for name in part)
    return found


def reference(
    names: Sequence[str], form: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]
) -> Tensor:
    """Return what such a spec computes, by Python itself: each name is what the call gives."""
    *_, steps = roles(names)
    x = tensors["x"]
    known: dict[str, object] = {**tensors, **numbers}
    for label, formula in zip(steps, formulas(names), strict=True):
        function = re.sub(r"\btanh\(", "TANH(", formula)
        known["x"] = x
        x = eval(function, {"TANH": _tanh}, known)  # noqa: S307 # the test's own formulas
        known[label] = x
    for step in FORMS[form][1]:
        x = x.softmax(-1 if step == "softmax" else next(iter(step.values()))["dim"])  # type: ignore[attr-defined]
    if form == "segments":
        first, second = known[steps[0]], known[steps[1]]
        assert isinstance(first, Tensor)
        assert isinstance(second, Tensor)
        x = x + second * first
    return x


def _tanh(value: Tensor | float) -> Tensor:
    return torch.tanh(torch.as_tensor(value, dtype=torch.float64))


def write(folder: Path, name: str, text: str) -> Path:
    """Write a spec, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def complaints(paths: Sequence[Path], folder: Path) -> str:
    """Return what the C++ compiler says of packages' sources, without making code of them.

    All packages are in one translation unit, so the headers of torch are read once.
    """
    for path in paths:
        files = pipeline.render_package(path).files
        (folder / path.stem).mkdir(parents=True)
        for file, text in files.items():
            (folder / path.stem / file).write_text(text)
        compile(files["__init__.py"], "__init__.py", "exec")
    found = compilers.find_compilers()
    flags = {  # a name clashes for every dtype or for none
        "kernel.cpp": [*found.kernel_flags("portable"), "-DFUSEGEN_DTYPES=float32"],
        "binding.cpp": found.binding_flags("cpu"),
    }
    said = ""
    for source, own in flags.items():
        (folder / source).write_text("".join(f'#include "{p.stem}/{source}"\n' for p in paths))
        command = [str(found.cxx), *own, "-fsyntax-only", str(folder / source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said += done.stderr
    return said
