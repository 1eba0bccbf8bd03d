"""Lays a built package out as the library `kernels` of Hugging Face expects a kernel.

https://huggingface.co/docs/kernels/kernel-requirements has the rules.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.toolchain.compilers import find_nvcc
from fusegen.tools.shipping.built import Built, glibc_of, read_all
from fusegen.tools.shipping.layers import layer_name, layers_code
from fusegen.tools.shipping.private_runtime import package_code, write_runtime
from fusegen.tools.shipping.wheel import TORCH, licence

_NAME = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]")

_CARD = """---
library_name: kernels
license: {licence}
---

# {name}

```python
from kernels import get_kernel

kernel = get_kernel("OWNER/{name}", version={version}, trust_remote_code=True)
```

{functions}, `kernel.Module` an `nn.Module`, and `kernel.layers.{layer}` replaces the
`forward` of a module with the same parameters.

```
{docs}
```
"""


@dataclass(frozen=True)
class HubKernel:
    """A kernel that was written.

    Args:
        folder: the repository's folder.
        variants: the names of its build variants.
        layer: the name of its layer.
        glibc: the oldest version of glibc that it runs with, if that is known.
    """

    folder: Path
    variants: tuple[str, ...]
    layer: str
    glibc: str | None


def write_hub_kernel(given: Path, version: int, license_name: str, out: Path) -> HubKernel:
    """Write a built package as a repository of the hub.

    Args:
        given: the folder of the package, or its name in generated/.
        version: the kernel's.
        license_name: the kernels' licence, as the hub calls it.
        out: the folder for the repository.

    Raises:
        UserError: if the package cannot be shipped, or the hub does not allow its name.
    """
    (built,) = read_all([given])
    name = built.name.lower().replace("_", "-")
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{built.name}: the hub takes names of letters, digits and dashes, of two or more and not with a "
            "dash at an end; rename the package's spec and build it again"
        )
    folder = out / name
    written = []
    for variant, backend, libraries in _variants(built):
        place = folder / "build" / variant
        if place.exists():
            shutil.rmtree(place)  # a file that is left from before would be in the digest
        place.mkdir(parents=True)
        _write_variant(place, built, name, libraries)
        about = {
            "name": name,
            "id": built.namespace,
            "version": version,
            "license": license_name,
            "python-depends": [],
            "backend": backend,
            "digest": {"algorithm": "sha256", "files": _digests(place)},
        }
        (place / "metadata.json").write_text(json.dumps(about, indent=2) + "\n")
        written.append(variant)
    layer = layer_name(built.name)
    named = [f"`kernel.{f}`" for f in re.findall(r"^def (apply\w*)\(", built.code, re.MULTILINE)]
    card = _CARD.format(
        licence=license_name,
        name=name,
        version=version,
        functions=f"{', '.join(named)} {'is a function' if len(named) == 1 else 'are functions'}",
        layer=layer,
        docs=built.docs,
    )
    readme = folder / "README.md"
    if not readme.exists():  # people write more into it
        readme.write_text(card)
    return HubKernel(folder, tuple(written), layer, glibc_of(built.libraries))


def _variants(built: Built) -> list[tuple[str, dict[str, object], tuple[str, ...]]]:
    """Return each build variant: its folder's name, its backend, and its libraries."""
    torch = "".join(re.findall(r"\d+", TORCH))
    system = f"{platform.machine()}-{platform.system().lower()}"
    found: list[tuple[str, dict[str, object], tuple[str, ...]]] = [
        (f"torch-stable-abi{torch}-cpu-{system}", {"type": "cpu"}, ("_cpu.so",))
    ]
    if built.architectures:
        newest = max(built.architectures, key=int)
        archs = [
            f"{number[:-1]}.{number[-1]}{'+PTX' if number == newest else ''}"
            for number in sorted(built.architectures, key=int)
        ]
        backend: dict[str, object] = {"type": "cuda", "archs": archs}
        name = f"torch-stable-abi{torch}-cu{_cuda(built)}-{system}"
        found.append((name, backend, ("_cpu.so", "_cuda.so")))
    return found


def _cuda(built: Built) -> str:
    """Return the version of CUDA that is here, such as "130"."""
    nvcc = find_nvcc()
    said = (
        subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
        if nvcc
        else ""
    )
    release = re.search(r"release (\d+)\.(\d+)", said)
    if release is None:
        raise UserError(
            f"{built.folder} is for CUDA, and nvcc, which knows the version, was not found; run this where "
            "the package was built"
        )
    return release[1] + release[2]


def _write_variant(place: Path, built: Built, name: str, libraries: tuple[str, ...]) -> None:
    for file in built.files:
        if file.suffix != ".so" or file.name in libraries:
            shutil.copyfile(file, place / file.name)
    exported = '\n\nfrom . import layers\n\n__all__ += ["layers"]\n'
    (place / "__init__.py").write_text(package_code(built.code, 0) + exported)
    (place / "layers.py").write_text(layers_code(built.code, built.name))
    write_runtime(place, name, [built.code])
    (place / "_fusegen" / "LICENSE").write_text(licence())


def _digests(place: Path) -> dict[str, str]:
    """Return a hash of each file below a folder, by its path."""
    return {
        path.relative_to(place).as_posix(): base64.b64encode(
            hashlib.sha256(path.read_bytes()).digest()
        ).decode()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
