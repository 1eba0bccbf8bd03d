"""What benchmarks/gpu_sanitize.sh watches: every form of kernel has a spec, a call and a name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, derive

from fusegen.lower.kernel import gpu_form

FORMS = sorted((ROOT / "benchmarks" / "forms").glob("*.yaml"))


@pytest.fixture(scope="module")
def sanitize() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # it imports a neighbour
        yield _loaded()


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sanitize", ROOT / "benchmarks" / "sanitize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_spec_has_calls(sanitize: ModuleType) -> None:
    assert {path.stem for path in FORMS} == {*sanitize.SHAPES, sanitize.WINDOWS}


def test_the_specs_reach_every_form_that_is_chosen_when_code_is_generated() -> None:
    kernels = [
        part
        for path in FORMS
        for segment in derive(path).segments
        for mode in segment.modes
        for kernel in mode.kernels
        for part in kernel.parts
    ]
    reached = {form for kernel in kernels for form in gpu_form.GpuForm(kernel).forms}
    assert reached == {name.lower() for name in (*gpu_form._SERVES, *gpu_form._APART)}


def test_every_kernel_of_the_headers_is_a_form(sanitize: ModuleType, tmp_path: Path) -> None:
    """All of those that choose at the call too; one that no output names is missing."""
    forms = sanitize.forms()
    headers = (ROOT / "templates" / "include").rglob("*.cuh")
    assert len({form.split()[0] for form in forms}) == sum(
        path.read_text().count("__global__ void") for path in headers
    )
    said = tmp_path / "values.txt"
    said.write_text("".join(f"form {form} 8,2\n" for form in sorted(forms - {"ring"})))
    assert sanitize.missing([said]) == {"ring"}


def test_a_kernel_is_named_by_its_form(sanitize: ModuleType) -> None:
    """As a profile names them."""
    inside = "fusegen_x::(anonymous namespace)::ForwardForm<fusegen::bfloat16>"
    for kernel, form in {
        f"void fusegen::(anonymous namespace)::resident<{inside}, fusegen_x::ForwardLaunch, "
        "fusegen::bfloat16, 8, 2, 512, 2, (fusegen::Holders)1>(int)": "resident block 8,2,512,2",
        f"void fusegen::(anonymous namespace)::flat<{inside}, fusegen_x::ForwardLaunch, "
        "fusegen::bfloat16, 16, 1>(int)": "flat 16,1",
        "void at::native::vectorized_elementwise_kernel<4, int>(int)": None,
    }.items():
        assert sanitize.form_of(kernel) == form


def test_parts_hold_every_call_once(sanitize: ModuleType) -> None:
    (path,) = (p for p in FORMS if p.stem == "dropped_rows")
    chain = derive(path)
    parts = sanitize.parts_of("dropped_rows", chain)
    calls = [*sanitize.cases(chain, sanitize.SHAPES["dropped_rows"])]
    assert sorted(n for part in parts for n in part) == [*range(len(calls))]
    assert len(parts) > 1


def test_forms_whose_calls_racecheck_did_not_end_are_named(
    sanitize: ModuleType, tmp_path: Path
) -> None:
    parts = sanitize.parts_of("halves", derive(next(p for p in FORMS if p.stem == "halves")))
    values, record = tmp_path / "values_halves.txt", tmp_path / "all.txt"
    calls = [f"call {n} of halves: flat 8,2; ring 4\n" for n in parts[0]]
    values.write_text("".join(calls) + "call 1 of rows: tiled lanes 8\n")
    record.write_text("racecheck halves 0: exit 0; 12 calls\nracecheck rows 0: exit 124; ; \n")
    said, *missing = sanitize.not_raced(record, [values])
    assert "2 of 3 forms" in said
    assert missing == ["not under racecheck: tiled lanes 8"]
