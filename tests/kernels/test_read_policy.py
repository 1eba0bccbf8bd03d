"""Large tensors are read under a policy of the GPU's second-level cache, whose words the host writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT, render_into

from fusegen.base import paths
from fusegen.toolchain import pipeline
from fusegen.toolchain.compilers import find_nvcc

NVCC = find_nvcc()

#: Exits with 0 where the host's words are what the chip makes of the same policies.
WORDS = """
#include "fusegen/cuda.cuh"
__global__ void words(uint64_t* found) {
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(found[0]));
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(found[1]));
}
int main() {
  uint64_t* found;
  if (cudaMallocManaged(&found, 2 * sizeof(uint64_t)) != cudaSuccess) return 2;
  words<<<1, 1>>>(found);
  if (cudaDeviceSynchronize() != cudaSuccess) return 3;
  const int64_t large = fusegen::beyond_cache;
  return found[0] != fusegen::read_policy(large - 1) || found[1] != fusegen::read_policy(large);
}
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_the_words_are_the_chips_own(tmp_path: Path) -> None:
    (tmp_path / "words.cu").write_text(WORDS)
    command = [str(NVCC), "-std=c++17", "-arch=native", f"-I{paths.include()}"]
    subprocess.run([*command, "words.cu", "-o", "words"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "words"], check=False).returncode == 0


def test_loads_have_the_policy_where_no_columns_are_summed() -> None:
    """Copies ahead have it everywhere: they take no registers."""
    text = pipeline.render_package(ROOT / "benchmarks" / "specs" / "layer_norm.yaml").files
    forward, backward = text["kernel.cu"].split("struct BackwardLaunch")
    assert "by_policy = true" in forward
    assert "by_policy" not in backward  # its registers are for the sums of columns


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_no_copy_with_the_policy_goes_to_a_plain_sum(tmp_path: Path) -> None:
    """Of one that goes to the sum of a thread's place and a uniform one ptxas 13.0 makes an illegal
    instruction: where it goes to must come of an `or`, which no address of an instruction holds."""
    render_into(tmp_path, ROOT / "specs" / "temperature_softmax.yaml")
    command = [
        *(str(NVCC), "-O3", "-std=c++17", "-arch=compute_90", "-ptx", "-DFUSEGEN_STORED=bfloat16"),
        f"-I{paths.include()}",
    ]
    subprocess.run([*command, "kernel.cu", "-o", "kernel.ptx"], cwd=tmp_path, check=True)
    kernels = (tmp_path / "kernel.ptx").read_text().split(".entry")
    copies = [
        (k, to)
        for k in kernels
        for to in re.findall(r"cp.async.cg\S+cache_hint \[(%r\d+)(?:\+\d+)?\]", k)
    ]
    assert copies
    for kernel, to in copies:
        assert re.findall(rf"(\S+)\s+{to},", kernel) == ["or.b32"]
