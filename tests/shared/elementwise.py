"""The element functions of pointwise specs on arrays, compiled without torch's headers, so in seconds.

`element.h` is all the mathematics of a package; what is left out are the loops around it.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from conftest import dtype_name
from prove.unary import pointwise

from fusegen import render
from fusegen.base import paths
from fusegen.chain import Chain
from fusegen.lower import Kernel
from fusegen.spec.model import OPERATORS
from fusegen.toolchain import pipeline
from fusegen.toolchain.compilers import find_compilers, find_nvcc

#: What C++ calls the dtypes.
TYPES = {
    torch.float64: "double",
    torch.float32: "float",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
#: The tensors that a kernel may read, in the order of the compiled functions' parameters.
READ = ("x", "grad_y", "grad_grad_x")


class Elementwise:
    """The pointwise chains of x alone among some, each with its derivatives as functions of arrays.

    Args:
        texts: the text of each spec by its name.
        folder: where the specs and the library go.
        dtypes: the dtypes that are compiled.
        orders: the derivatives that are compiled; 0 is the value.
        device: "cpu" or "cuda": what they are compiled for.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        folder: Path,
        dtypes: Collection[torch.dtype],
        orders: Collection[int],
        device: str = "cpu",
    ) -> None:
        self.chains: dict[str, Chain] = {}
        lines = ['#include "fusegen/storage.h"', '#include "fusegen/precision.h"']
        code = []
        for name, text in texts.items():
            spec = folder / f"{name}.yaml"
            spec.write_text(text)
            chain = pipeline.derive(spec)
            if not pointwise(chain):
                continue
            self.chains[name] = chain
            (folder / f"{name}.h").write_text(render.render(chain)["element.h"])
            lines.append(f'#include "{name}.h"')
            kernels = chain.segments[0].modes[0].kernels
            code += [
                _function(name, kernel, dtype, device)
                for kernel in kernels
                if OPERATORS.index(kernel.name) in orders
                for dtype in dtypes
            ]
        source, library = folder / "elementwise.cu", folder / "elementwise.so"
        source.write_text("\n".join([*lines, "using namespace fusegen;", *code]))
        includes = [f"-I{paths.include()}", f"-I{folder}"]
        compiler = _cxx() if device == "cpu" else _nvcc()
        subprocess.run([*compiler, *includes, str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))

    def __call__(self, name: str, order: int, x: torch.Tensor) -> torch.Tensor:
        """Return a chain's value (order 0), or its first or second derivative, at each element."""
        x = x.contiguous()
        ones, result = torch.ones_like(x), torch.empty_like(x)
        function = self._library[f"{name}_{OPERATORS[order]}_{dtype_name(x.dtype)}"]
        if x.is_cuda:
            torch.cuda.synchronize()
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, ones, ones, result)]
        function(*pointers, ctypes.c_long(x.numel()))
        return result


def _cxx() -> list[str]:
    flags = ["-x", "c++", "-std=c++20", "-O1", "-march=native", "-ffp-contract=off"]
    return [str(find_compilers().cxx), *flags, "-shared", "-fPIC"]


def _nvcc() -> list[str]:
    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
    flags = ["-std=c++17", "-O3", "--fmad=false", f"-arch=sm_{major}{minor}"]
    return [str(find_nvcc()), *flags, "-shared", "-Xcompiler=-fPIC"]


def _function(name: str, kernel: Kernel, dtype: torch.dtype, device: str) -> str:
    """Return a function that calls a kernel's element function for each element."""
    kind, function = TYPES[dtype], f"{name}_{kernel.name}_{dtype_name(dtype)}"
    loads = [f"full.{f.name} = load({f.name} + i);" for f in kernel.inputs.full]
    parameters = ", ".join(f"const {kind}* {r}" for r in READ) + f", {kind}* y"
    given = ", ".join([*READ, "y"])
    wanted = "y" if kernel.name == "forward" else "grad_x"
    known = wanted in {r.name for r in kernel.results}
    result = f"out.{wanted}" if known else "0"  # a derivative that is 0 everywhere
    element = f"""FUSEGEN_FN void {function}_at({parameters}, long i) {{
  using K = fusegen_{name}::{kernel.struct}<math_t<{kind}>>;
  typename K::Scalar scalar{{}};
  typename K::Full full{{}};
  typename K::Out out{{}};
  typename K::Live live{{}};
  {"K::scalars(scalar);" if kernel.scalar_lines else ""}
  {" ".join(loads)}
  K::stage0(full, {{}}, {{}}, scalar, live, out);
  store(y + i, {result});
}}"""
    if device == "cpu":
        loop = f"for (long i = 0; i < n; ++i) {function}_at({given}, i);"
        return f'{element}\nextern "C" void {function}({parameters}, long n) {{ {loop} }}'
    one = f"if (i < n) {function}_at({given}, i);"
    launch = f"{function}_all<<<(n + 255) / 256, 256>>>({given}, n); cudaDeviceSynchronize();"
    return f"""{element}
__global__ void {function}_all({parameters}, long n) {{
  const long i = blockIdx.x * 256L + threadIdx.x;
  {one}
}}
extern "C" void {function}({parameters}, long n) {{ {launch} }}"""
