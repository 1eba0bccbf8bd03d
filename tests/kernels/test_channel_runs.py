"""Operands and sums of columns with few or odd neighbouring rows: batch norms of small and of odd images."""

from __future__ import annotations

import ctypes
import subprocess
from itertools import product
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import dtype_name
from shared.chains_of_texts import Built, built_texts
from torch import Tensor

from fusegen.base import paths
from fusegen.toolchain.compilers import find_compilers
from fusegen.tools.check import verify

SOURCE = """
#include "fusegen/forms/gpu_places.cuh"
using namespace fusegen;
extern "C" int64_t step(int64_t place, int64_t width, int64_t elements) {
  return step_of_walk(place, int(width), elements);
}
extern "C" void places(int64_t channels, int64_t run, int64_t together, int64_t* found) {
  const ChannelRuns runs{channels, run};
  uint32_t neighbours[8];
  for (int64_t at = 0; at < together; ++at) {
    if (at % 8 == 0) runs.channels_of(neighbours, uint32_t(at));
    found[2 * at] = neighbours[at % 8];
    found[2 * at + 1] = runs.by_channel(uint32_t(at), uint32_t(together));
  }
}
extern "C" int64_t walks(int64_t places, int64_t channels, int64_t run, int64_t width) {
  return ChannelRuns{channels, run}.walks(places, int(width));
}
"""
#: What all specs begin with.
HEAD = "dtypes: [float32, bfloat16]\narguments: {channels: int}\n"
TEXTS = {
    "normalised": f"{HEAD}dims: 4\norder: 1\n"
    "chain:\n  - batch_norm: {features: channels}\n  - leaky_relu\n",
    # A second derivative, and a sum over all elements beside those of columns.
    "normalised_twice": f"{HEAD}dims: 4\norder: 2\noperands: {{factor: scalar}}\n"
    "chain:\n  - batch_norm: {features: channels}\n  - tanh\n  - mul: factor\n",
    "normalised_dropped": f"{HEAD}dims: 4\norder: 1\n"
    "chain:\n  - batch_norm: {features: channels}\n  - dropout: 0.3\n",
    "normalised_signals": f"{HEAD}dims: 3\norder: 1\n"
    "chain:\n  - batch_norm: {features: channels}\n  - swish\n",
}
DTYPES = (torch.float32, torch.bfloat16)
#: Samples too few for a walk, for its sums, and enough; steps of one sample and of several, with and without
#: samples that are left; runs that accesses divide, and others; a single channel.
SHAPES = [
    *((3, 5, 7, 7), (37, 65, 3, 2), (64, 5, 7, 7), (33, 512, 7, 7), (130, 3, 1, 2)),
    *((163, 65, 3, 2), (331, 5, 7, 7), (66, 8, 7, 7), (90, 8, 6, 10), (700, 1, 1, 3)),
    *((5001, 3, 2, 1), (1200, 3, 31, 1), (100, 16, 2, 2), (90, 8, 8, 8), (4099, 5, 1, 3)),
]
SIGNALS = [(1000, 7, 5), (1001, 7, 5), (40, 64, 15), (5000, 2, 2)]


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Gives what gpu_places.cuh decides."""
    folder = tmp_path_factory.mktemp("gpu_places")
    (folder / "places.cpp").write_text(SOURCE)
    library = folder / "places.so"
    command = [str(find_compilers().cxx), "-std=c++17", "-O1", "-Wall", "-Werror", "-shared"]
    command += ["-Wno-unused-function", "-fPIC", f"-I{paths.include()}"]
    subprocess.run([*command, str(folder / "places.cpp"), "-o", str(library)], check=True)
    found = ctypes.CDLL(str(library))
    for function in (found.step, found.walks):
        function.argtypes = (
            [ctypes.c_int64] * 4 if function is found.walks else [ctypes.c_int64] * 3
        )
        function.restype = ctypes.c_int64
    found.places.argtypes = [*3 * [ctypes.c_int64], ctypes.c_void_p]
    return found


def test_parts_of_a_channel_lie_side_by_side(functions: ctypes.CDLL) -> None:
    """Each element of a step has its channel, and a place of its own among the parts of that channel."""
    for channels, run, width in product((1, 3, 8, 65), (2, 6, 7, 49), (2, 4, 8)):
        for samples in (40, 700, 40_000):
            together = functions.step(channels * run, width, samples * channels * run)
            assert together % width == 0
            found = (ctypes.c_int64 * (2 * together))()
            functions.places(channels, run, together, found)
            table = torch.tensor(found[:]).view(together, 2)
            everything = torch.arange(together)
            # As in a tensor [samples, channels, run].
            as_tensor = everything.view(-1, channels, run).transpose(0, 1)
            own = (
                torch.arange(channels)
                .view(1, channels, 1)
                .expand(together // channels // run, -1, run)
            )
            assert torch.equal(table[:, 0], own.flatten())
            assert torch.equal(table[as_tensor.flatten(), 1], everything)


@pytest.mark.parametrize(
    ("call", "walks"),
    [
        ((64, 512, 49, 4), True),  # samples, channels, run; elements of an access
        ((64, 512, 3136, 4), False),  # many accesses side by side
        ((64, 512, 3137, 4), True),  # which do not divide it
        ((64, 512, 60, 4), True),
        ((64, 512, 64, 4), False),
        ((64, 512, 64, 8), True),
        ((31, 512, 49, 4), False),  # few samples
        ((64, 512, 1, 4), False),  # channels-last: its columns are adjacent
        ((64, 2**25, 49, 4), False),  # beyond what 32 bits count
    ],
)
def test_when_samples_are_walked_down(
    call: tuple[int, ...], walks: bool, functions: ctypes.CDLL
) -> None:
    assert bool(functions.walks(*call)) == walks


gpu = pytest.mark.gpu
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    dtypes = dict.fromkeys(TEXTS, ("float32", "bfloat16"))
    return built_texts(tmp_path_factory, "channel_runs", TEXTS, dtypes)


def shifted(package: ModuleType, name: str) -> Any:
    """Return a package whose function gets its x one element into a piece of memory."""

    def function(x: Tensor, *operands: Tensor, **options: Any) -> Any:
        longer = torch.cat([x.new_zeros(1), x.flatten()])
        return getattr(package, name)(longer[1:].view(x.shape), *operands, **options)

    return SimpleNamespace(**{name: function})


@gpu
@on_a_gpu
@pytest.mark.parametrize("training", [True, False], ids=("training", "evaluation"))
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", TEXTS)
def test_values_and_gradients(
    name: str, dtype: torch.dtype, training: bool, built: dict[str, Built]
) -> None:
    chain, package = built[name]
    for shape in SIGNALS if name == "normalised_signals" else SHAPES:
        case = verify.make_case(chain, shape, training=training, device="cuda")
        for error in verify.compare(package, chain, case, dtype):
            assert error.within, f"{shape}: {error}"


@gpu
@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_unaligned(dtype: torch.dtype, built: dict[str, Built]) -> None:
    chain, package = built["normalised"]
    for shape in [(163, 65, 3, 2), (66, 8, 7, 7), (5001, 3, 2, 1)]:
        case = verify.make_case(chain, shape, training=True, device="cuda")
        for error in verify.compare(shifted(package, chain.spec.function), chain, case, dtype):
            assert error.within, f"{shape}: {error}"


@gpu
@on_a_gpu
def test_which_form_serves(built: dict[str, Built]) -> None:
    """Every kernel over elements walks down many samples of short runs, and no other ones."""
    chain, package = built["normalised"]

    def kernels(shape: tuple[int, ...]) -> set[str]:
        case = verify.make_case(chain, shape, training=True, device="cuda")
        x = case.x.float().requires_grad_()
        operands = {k: t.float().requires_grad_() for k, t in case.operands.items()}
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as seen:
            y = getattr(package, chain.spec.function)(x, **operands, **case.options)
            torch.autograd.grad(y, x, torch.ones_like(y))
        forms = ("by_channel<", "outer<")
        return {form for event in seen.key_averages() for form in forms if form in event.key}

    assert kernels((2048, 65, 3, 2)) == {"by_channel<"}
    assert kernels((1024, 16, 7, 7)) == {"by_channel<"}
    assert kernels((16, 16, 7, 7)) == {"outer<"}
    assert kernels((64, 16, 56, 56)) == {"outer<"}
