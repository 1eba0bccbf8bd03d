"""What several tests share: the packages, built once, and the devices of this machine."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from _pytest.mark import ParameterSet
from filelock import FileLock
from scheduling import Scheduling, is_left_out, mark_slow_ones, start_with_long_ones

from fusegen import chain, load
from fusegen.spec.model import OPERATORS
from fusegen.toolchain import builder, pipeline

os.environ["FUSEGEN_VERIFY"] = "1"  # a verifier looks at what each operator of lowering leaves
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a pool of processes imports torch again

gc.disable()  # until all tests are collected, most of which stay
ROOT = Path(__file__).resolve().parent.parent
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
NAMES = [path.stem for path in SPECS]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
_ON_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=_ON_A_GPU)]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return is_left_out(collection_path, config.getoption("markexpr")) or None


@pytest.hookimpl(tryfirst=True)  # before -m selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow_ones(items)
    start_with_long_ones(items)


def pytest_collection_finish() -> None:
    """Leave what is there by now out of later collections: these then take a tenth less of all time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    return Scheduling(config, log)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtypes_on_devices(
    names: Iterable[str], compiled: Mapping[str, Sequence[str]]
) -> list[ParameterSet]:
    """Return each package with each dtype on each device: on the CPU with those that it is compiled for.

    Args:
        names: the packages.
        compiled: the dtypes of these and perhaps of others, as from `in_turn` in random_programs/build.py.
    """
    return [
        pytest.param(name, dtype, device, id=f"{name}-{dtype_name(dtype)}-{device}", marks=marks)
        for name in names
        for device, marks in (("cpu", ()), ("cuda", _ON_A_GPU))
        for dtype in DTYPES
        if device == "cuda" or dtype_name(dtype) in compiled[name]
    ]


def constructor(module: type[torch.nn.Module]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor, but for the device and the dtype, which every Module takes."""
    parameters = inspect.signature(module).parameters
    return {name: p for name, p in parameters.items() if name not in ("device", "dtype")}


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose only FUSEGEN_ variables are those given."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FUSEGEN_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the committed packages, built for what this machine has."""
    out = ROOT / "generated"
    once(tmp_path_factory, "generated", lambda: builder.build(SPECS, out=out), native=False)
    return out


def render_into(folder: Path, spec: Path) -> None:
    """Write a package's files into a folder, without building them."""
    for file, text in pipeline.render_package(spec).files.items():
        (folder / file).write_text(text)


@pytest.fixture(scope="session")
def package(generated: Path) -> Callable[[str], ModuleType]:
    """Gives a package of specs/ by name."""
    return lambda name: load(name, generated)


@functools.cache
def derive(spec: Path) -> chain.Chain:
    """Return the chain of a spec that no test changes, derived once in each worker."""
    return pipeline.derive(spec)


@pytest.fixture(scope="session")
def derived() -> Callable[[str], chain.Chain]:
    """Gives what is derived from a spec of specs/ by name."""
    return lambda name: derive(ROOT / "specs" / f"{name}.yaml")


@pytest.fixture(scope="session")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[chain.Chain, ModuleType]]:
    """Gives a chain of benchmarks/specs or benchmarks/cells and its package."""
    out = shared(tmp_path_factory) / "measured"

    def of(name: str) -> tuple[chain.Chain, ModuleType]:
        (path,) = (ROOT / "benchmarks").glob(f"*/{name}.yaml")
        once(tmp_path_factory, name, lambda: builder.build([path], out=out))
        return derive(path), load(name, out)

    return of


@pytest.fixture
def launched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str, str], tuple[chain.Chain, ModuleType]]:
    """Gives a chain of specs/ and its package, built with launch parameters of one's own in each operator."""

    def of(name: str, parameters: str) -> tuple[chain.Chain, ModuleType]:
        path = tmp_path / f"launched_{name}_{re.sub('[^0-9a-z]+', '_', parameters)}.yaml"
        launch = "".join(f"  {p}: {{{parameters}}}\n" for p in OPERATORS[:3])
        path.write_text(f"{(ROOT / 'specs' / f'{name}.yaml').read_text()}launch:\n{launch}")
        monkeypatch.setenv("FUSEGEN_NATIVE", "1")
        builder.build([path], out=tmp_path / "out")
        return pipeline.derive(path), load(path.stem, tmp_path / "out")

    return of


def dtypes_of(name: str) -> dict[str, tuple[str, ...]]:
    """Return the dtypes that the packages of tests/<name> are compiled for on the CPU."""
    from random_programs.build import in_turn

    dtypes = in_turn(path.stem for path in (ROOT / "tests" / name).glob("*.yaml"))
    if name == "chains":  # inductor lays out a convolution of float32 (test_dropout.py)
        dtypes["conv_transpose3d_log_softmax_dropout"] = ("float64", "float32")
    return dtypes


@pytest.fixture(scope="session")
def shaped_packages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the packages of tests/chains, built once for all workers."""
    return together(request, tmp_path_factory, "chains")


@pytest.fixture(scope="session")
def segment_packages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the packages of tests/segments, built once for all workers."""
    return together(request, tmp_path_factory, "segments")


def together(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, name: str
) -> Path:
    """Return a folder with the packages of tests/<name> that are asked for, built by the first worker."""
    from random_programs.build import build_specs

    specs, out = sorted((ROOT / "tests" / name).glob("*.yaml")), shared(tmp_path_factory) / name
    asked = asked_for(request, {spec.stem for spec in specs})
    specs = [spec for spec in specs if spec.stem in asked]
    once(tmp_path_factory, name, lambda: build_specs(specs, out, dtypes=dtypes_of(name)))
    return out


def asked_for(request: pytest.FixtureRequest, packages: set[str]) -> set[str]:
    """Return those packages of a fixture that the selected tests name: all if a test names none."""
    asked = set()
    for item in request.session.items:
        if request.fixturename in getattr(item, "fixturenames", ()):
            parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
            named = {p for p in parameters if isinstance(p, str)} & packages
            if not named:
                return packages
            asked |= named
    return asked


@pytest.fixture(scope="session")
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of the ops that are asked for, built once for all workers."""
    from shared.vocabulary import ALL, build_vocabulary

    out, ops = shared(tmp_path_factory) / "vocabulary", asked_for(request, set(ALL))
    once(tmp_path_factory, "vocabulary", lambda: build_vocabulary(out, ops))
    return out


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has packages built for this processor alone, in a third of the time."""
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")


@pytest.fixture
def specs_by_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch compute each spec of a model, so that nothing is built."""
    from shared.by_torch import packages

    from fusegen.models import backend

    monkeypatch.setattr(backend, "packages_of", packages)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def built_alone(folder: Path, name: str, text: str, dtypes: Iterable[torch.dtype]) -> ModuleType:
    """Return the package of a spec's text, built in a folder of its own for this processor alone."""
    from random_programs.build import build_specs

    spec = folder / f"{name}.yaml"
    spec.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEGEN_NATIVE", "1")
        build_specs([spec], folder, dtypes=[dtype_name(dtype) for dtype in dtypes])
    return load(name, folder)


def once(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    build: Callable[[], object],
    *,
    native: bool = True,
) -> None:
    """Build something by the first worker who asks: `native`, for this processor alone; the others wait."""
    folder = shared(tmp_path_factory)
    with FileLock(folder / f"{name}.lock"):
        done = folder / f"{name}.done"
        if not done.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("FUSEGEN_NATIVE", str(int(native)))
                build()
            done.touch()


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers have."""
    base = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist has a folder of its own beside the others'.
    return base.parent if base.name.startswith("popen-") else base
