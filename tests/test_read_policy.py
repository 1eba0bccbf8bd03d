"""Large tensors are read under a policy of the GPU's second-level cache, whose words the host writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from fusegen import paths, pipeline
from fusegen.compilers import find_nvcc

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


def test_loads_have_the_policy_and_copies_ahead_have_not() -> None:
    """One with a policy becomes an illegal instruction where ptxas splits its place in shared memory."""
    text = pipeline.render_package(ROOT / "benchmarks" / "specs" / "layer_norm.yaml").files
    forward, backward = text["kernel.cu"].split("struct BackwardLaunch")
    assert "load_packed<V>(x_from + item * apart, policy)" in forward
    assert "policy" not in backward  # its registers are for the sums of columns
    assert "cache_hint" not in (paths.include() / "fusegen" / "reads.cuh").read_text()
