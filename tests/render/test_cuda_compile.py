"""Every generated .cu compiles, GPU or not, for the architectures that users have."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import NAMES, ROOT, render_into
from shared.nvcc_front_end import nvcc_complaints
from shared.vocabulary import chain_text

from fusegen.base import paths
from fusegen.base.dtypes import STORED
from fusegen.toolchain.compilers import find_nvcc, known_architectures

NVCC = find_nvcc()
ARCHITECTURES = [a for a in ("80", "90", "100") if NVCC and a in known_architectures(NVCC)]
#: A chain of each form, compiled whole and for other architectures, with one derivative. Every chain's device
#: code is compiled for Hopper: what differs by architecture lies in the headers.
ASSEMBLED = {"matmul_swish_scale": ARCHITECTURES, "scale_softmax": ["80"]}
#: What else differs there: a random number and a gate.
DIFFERS = ("matmul_dropout_softmax", "gated_rms_norm")

FUNCTION = re.compile(
    r"Compiling entry function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes spill stores", re.DOTALL
)
#: What is optimized. A double's kernels call libm's functions, which save registers on the stack: that counts
#: as a spill. float16 has bfloat16's registers.
OPTIMIZED = ("float32", "bfloat16")
#: Of chains with rows, one of the two: a softmax and a norm have each once. A gated norm has more in
#: registers in float32.
FEWER = {
    "gated_rms_norm": ("float32",),
    "gemm_batchnorm_scale_softmax": ("bfloat16",),
    "matmul_dropout_softmax": ("float32",),
    "matmul_gelu_softmax": ("bfloat16",),
    "scale_softmax": ("bfloat16",),
    "temperature_softmax": ("bfloat16",),
}
#: Optimized with one derivative: their second takes three times as long, and a softmax's is among the others.
ONE_DERIVATIVE = (
    "gemm_batchnorm_scale_softmax",
    "matmul_dropout_softmax",
    "matmul_gelu_softmax",
    "temperature_softmax",
)
#: What the front end sees of other chains, some in each dtype: double and float are computed in, 8 bytes and
#: 2 are stored.
LAYOUTS = {
    "float64": (
        "chains/conv2d_channel_softmax_sigmoid",
        "chains/linear_group_norm_swish_mul",
        "chains/conv2d_glu_channel_softmax",
        "chains/linear_swiglu_scale",
    ),
    "float16": (
        "chains/conv1d_mish_softmax",
        "chains/conv_transpose2d_batch_norm_tanh",
        "chains/conv2d_reglu_scale",
        "segments/conv2d_geglu_batch_norm_mean_prelu",
    ),
}

#: Accesses of 32 bytes are for chips of compute capability 10.0; a Hopper only gets them if a spec asks.
OF_WIDE = re.compile(r"bfloat16ELi16E|LaunchEfLi8E")
#: Ten values of each of eight elements, as in the second derivative of a softmax, do not quite fit in the 128
#: registers of a thread: some of them may go through the cache.
HIGHER = re.compile(r"DoubleBackward|TripleBackward")
#: A streamed row has its next vectors in registers too, in 16-bit types one of the 64 too many, where it
#: waits for the L2 cache anyway. Half the threads would cost more.
STREAMED = re.compile(r"8streamedI")
#: A thread of a tile has up to 24 elements, with two values each in 128 registers: one may be too many,
#: once a row.
TILED = re.compile(r"5tiledI")
#: Sixteen floats in one of two blocks' 64 registers: up to five too many in a cluster, or after a gate, and
#: eight in a softmax behind a bias that saves nothing. Half as many would cost more: the exchanges of a
#: cluster would be twice as many (docs/notes/2026-11-22_norms.md). The fifth is a gap's, counted after a
#: branch, which spares one in a layer norm's backward.
SIXTEEN_FLOATS = re.compile(r"8residentI.*LaunchEfLi4ELi4E")


#: Chains with a row value, and with one number: of rows in one piece, and of those that lie apart. And those
#: whose results are two halves, written by pointwise kernels and by row kernels.
REDUCED = {
    "float64": {
        "reduced_and_dropped": chain_text("reduced_and_dropped"),
        "loss_of_an_image": "dims: 4\norder: 1\n"
        "operands: {target: {kind: row, dtype: int64}, weight: channel, bias: channel}\n"
        "chain:\n  - add: bias\n  - cross_entropy: {target: target, weight: weight}\n",
    },
    "float16": {
        "loss_after_an_activation": chain_text("loss_after_an_activation"),
        "mixed_dtypes": "dims: 4\norder: 1\noperands:\n  weight: {kind: channel, dtype: float32}\n"
        "  factor: {kind: row, dtype: float32}\n  bias: channel\nchain:\n"
        '  - expr: "x * weight + bias"\n  - normalize: {dim: [1, 2, 3]}\n  - mul: weight\n  - mul: factor\n',
        "float32_results": "order: 1\noutputs: [{name: lse, dtype: float32}, {name: loss, dtype: float32}]\n"
        "operands: {target: {kind: row, dtype: int64}, weight: {kind: channel, dtype: float32}}\nchain:\n"
        '  - logsumexp: {name: lse, dim: 1, keepdim: true}\n  - expr: "input - lse"\n'
        "  - nll_loss: {name: loss, target: target, weight: weight}\n",
        "over_channels": "dims: 4\noperands: {weight: channel}\n"
        "outputs: [{name: mean, dtype: float32}, y]\nchain:\n"
        '  - expr: {name: mean, formula: "mean(x)", dim: [0, 2, 3]}\n'
        '  - expr: {name: y, formula: "(input - mean) * weight"}\n',
        "rotary": "dims: 4\norder: 1\noperands: {cos: full, sin: full}\n"
        "chain:\n  - rope: {cos: cos, sin: sin}\n",
        "rotary_of_a_norm": "order: 1\noperands: {weight: col, cos: full, sin: full}\n"
        "chain:\n  - rms_norm: {weight: weight, eps: 1e-6}\n  - rope: {cos: cos, sin: sin}\n",
        "neighbours_of_a_norm": "order: 1\noperands: {weight: col, cos: full, sin: full}\n"
        "chain:\n  - rms_norm: {weight: weight, eps: 1e-6}\n  - rope: {cos: cos, sin: sin, "
        "interleaved: true, partial_rotary_factor: 0.5, per_pair: true}\n",
        # A kernel with two results of different kinds, and one that reads no tensor of the full shape.
        "handed_on_and_broadcast": "dims: 4\norder: 1\noperands: {bias: channel}\n"
        "chain:\n  - relu: {name: bent}\n  - amax: {dim: [1, 2], keepdim: true}\n  - add: bias\n"
        "  - mul: bent\n",
    },
}


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("dtype", REDUCED)
def test_row_values_and_totals_compile(dtype: str, tmp_path: Path) -> None:
    assert _complaints(REDUCED[dtype], dtype, tmp_path) == ""


def _complaints(texts: Mapping[str, str], dtype: str, folder: Path) -> str:
    """Return what nvcc says of some specs' packages, all in one source: it reads the headers once."""
    for name, text in texts.items():
        (folder / name).mkdir()
        spec = folder / name / f"{name}.yaml"
        spec.write_text(text)
        render_into(folder / name, spec)
    source = folder / "kernels.cu"
    source.write_text("".join(f'#include "{name}/kernel.cu"\n' for name in texts))
    return nvcc_complaints(source, dtype=dtype)


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_without_spills(name: str, tmp_path: Path) -> None:
    """Every warning is an error; on Hopper next to no register is spilled."""
    package = ROOT / "generated" / name
    if name in ONE_DERIVATIVE:
        package = tmp_path
        _render_one_derivative(name, package)
    for dtype in FEWER.get(name, OPTIMIZED):
        said = _compiled(package, dtype, ["90"], "-fatbin", tmp_path)
        spills = {
            function: int(stores)
            for function, architecture, stores in FUNCTION.findall(said)
            if architecture == "90" and not OF_WIDE.search(function)
        }
        assert spills
        assert not {f: n for f, n in spills.items() if n > _allowed(f)}


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("name", ASSEMBLED)
def test_it_is_assembled_for_other_architectures(name: str, tmp_path: Path) -> None:
    """With the host's code: every warning is an error."""
    others = [a for a in ASSEMBLED[name] if a != "90"]
    assert "80" in others
    _render_one_derivative(name, tmp_path)
    said = _compiled(tmp_path, "bfloat16", others, "-c", tmp_path)
    assert {a for _, a, _ in FUNCTION.findall(said)} == set(others)


def _compiled(
    package: Path, dtype: str, architectures: Sequence[str], target: str, folder: Path
) -> str:
    """Return what nvcc says of optimized code; a warning is an error."""
    command = [
        *(str(NVCC), "-O3", "-std=c++17", "-Xptxas=-v", "-Werror=all-warnings"),
        *(f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures),
        *(f"-I{paths.include()}", f"-DFUSEGEN_STORED={STORED[dtype]}", target),
        *(str(package / "kernel.cu"), "-o", str(folder / "kernel.o")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _render_one_derivative(name: str, folder: Path) -> None:
    """Write the package of a spec of specs/ into a folder, without its second derivative."""
    spec = folder / f"{name}.yaml"
    spec.write_text(f"order: 1\n{(ROOT / 'specs' / f'{name}.yaml').read_text()}")
    render_into(folder, spec)


def _allowed(function: str) -> int:
    """Return how many bytes of a function's registers may go through the cache."""
    if HIGHER.search(function):
        return 96
    if SIXTEEN_FLOATS.search(function):
        return 32
    return 8 if STREAMED.search(function) or TILED.search(function) else 0


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("name", DIFFERS)
def test_it_compiles_for_other_architectures(name: str, tmp_path: Path) -> None:
    _render_one_derivative(name, tmp_path)
    others = [a for a in ARCHITECTURES if a != "90"]
    assert nvcc_complaints(tmp_path / "kernel.cu", others, "bfloat16") == ""


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("dtype", LAYOUTS)
def test_layouts_compile(dtype: str, tmp_path: Path) -> None:
    """Columns that lie apart, sums by channel, halves of a tensor, segments: with every warning an error.

    Those that name no order have one derivative. The others have two, or three.
    """
    paths = [ROOT / "tests" / f"{name}.yaml" for name in LAYOUTS[dtype]]
    texts = {path.stem: path.read_text() for path in paths}
    few = {n: t if "order:" in t else f"order: 1\n{t}" for n, t in texts.items()}
    assert _complaints(few, dtype, tmp_path) == ""
