"""The element functions of pointwise specs on arrays, compiled without torch's headers, so in seconds.

`element.h` is all the mathematics of a package; what is left out are the loops around it.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from conftest import dtype_name

from fusegen import paths, pipeline, render
from fusegen.chain import Chain
from fusegen.compilers import find_compilers
from fusegen.lower import Kernel
from fusegen.program import Input, Map
from fusegen.spec_types import PASSES

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
    """

    def __init__(self, texts: Mapping[str, str], folder: Path) -> None:
        self.chains: dict[str, Chain] = {}
        lines = ['#include "fusegen/dtype.h"', '#include "fusegen/precision.h"']
        code = []
        for name, text in texts.items():
            spec = folder / f"{name}.yaml"
            spec.write_text(text)
            chain = pipeline.derive(spec)
            if not _pointwise(chain):
                continue
            self.chains[name] = chain
            (folder / f"{name}.h").write_text(render.render(chain)["element.h"])
            lines.append(f'#include "{name}.h"')
            (leg,) = chain.legs
            code += [
                _loop(name, kernel, dtype) for kernel in leg.modes[0].kernels for dtype in TYPES
            ]
        source, library = folder / "elementwise.cpp", folder / "elementwise.so"
        source.write_text("\n".join([*lines, "using namespace fusegen;", *code]))
        command = [
            str(find_compilers().cxx),
            "-std=c++20",
            "-O1",
            "-march=native",
            "-shared",
            "-fPIC",
        ]
        includes = [f"-I{paths.include()}", f"-I{folder}"]
        subprocess.run([*command, *includes, str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))

    def __call__(self, name: str, order: int, x: torch.Tensor) -> torch.Tensor:
        """Return a chain's value (order 0), or its first or second derivative, at each element."""
        x = x.contiguous()
        ones, result = torch.ones_like(x), torch.empty_like(x)
        function = self._library[f"{name}_{PASSES[order]}_{dtype_name(x.dtype)}"]
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, ones, ones, result)]
        function(*pointers, ctypes.c_long(x.numel()))
        return result


def _pointwise(chain: Chain) -> bool:
    """Whether a chain is a function of each element of x."""
    nodes = chain.legs[0].modes[0].programs[0].nodes()
    return all(
        isinstance(node, Map) or (isinstance(node, Input) and node.name == "x") for node in nodes
    )


def _loop(name: str, kernel: Kernel, dtype: torch.dtype) -> str:
    """Return a function that calls a kernel's element function for each element."""
    kind = TYPES[dtype]
    struct = f"fusegen_{name}::{kernel.struct}<math_t<{kind}>>"
    loads = [f"full.{f.name} = load({f.name} + i);" for f in kernel.full]
    parameters = ", ".join(f"const {kind}* {r}" for r in READ)
    wanted = "y" if kernel.name == "forward" else "grad_x"
    known = wanted in {r.name for r in kernel.results}
    result = f"out.{wanted}" if known else "0"  # a derivative that is 0 everywhere
    scalars = "K::scalars(scalar);" if kernel.scalar_lines else ""
    return f"""extern "C" void {name}_{kernel.name}_{dtype_name(dtype)}({parameters}, {kind}* y, long n) {{
  using K = {struct};
  typename K::Scalar scalar{{}};
  {scalars}
  for (long i = 0; i < n; ++i) {{
    typename K::Full full{{}};
    typename K::Out out{{}};
    typename K::Kept kept{{}};
    {" ".join(loads)}
    K::stage0(full, {{}}, {{}}, scalar, kept, out);
    store(y + i, {result});
  }}
}}"""
