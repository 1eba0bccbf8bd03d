"""Packages that are built together, here or in a process of its own: what is refused stops no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shared.tiny_packages import Workshop, answer, kernel

from fusegen.base.errors import UserError
from fusegen.toolchain import build_process, builder
from fusegen.toolchain.build_each import build_each
from fusegen.toolchain.build_process import BuildProcess


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_what_is_refused_stops_no_other(shop: Workshop) -> None:
    texts = {"a": kernel(1), "b": "!", "c": "no C++", "d": kernel(4)}
    specs = [shop.spec(name, text) for name, text in texts.items()]
    refused = build_each(specs, shop.out)
    assert refused.keys() == {"b", "c"}
    assert "a mistake" in refused["b"]
    assert "no C++" in refused["c"]
    assert [answer(shop.out / name / "_cpu.so") for name in "ad"] == [1, 4]
    assert all(builder.is_rendered(s, shop.out) == (s.stem != "b") for s in specs)


@pytest.mark.parametrize(("count", "workers"), [(2, False), (9, True)])
def test_few_specs_start_no_process(
    count: int, workers: bool, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusegen.toolchain.render_pool.cores", lambda: 2)
    monkeypatch.setattr("fusegen.toolchain.render_pool.jobs", lambda asked, _: asked or 2)
    specs = [shop.spec(f"s{n}", "!") for n in range(count)]
    begun: list[int] = []

    def begin(*given: Any) -> dict[Path, UserError]:
        begun.append(len(given[0]))
        return dict.fromkeys(specs, UserError("by a process"))

    monkeypatch.setattr("fusegen.toolchain.render_pool._by_workers", begin)
    assert build_each(specs, shop.out).keys() == {path.stem for path in specs}
    assert begun == ([count] if workers else [])


def write(folder: Path, **texts: str) -> list[Path]:
    paths = [folder / f"{name}.yaml" for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    return paths


@pytest.mark.slow
def test_a_process_says_what_it_refuses(tmp_path: Path) -> None:
    specs = write(tmp_path, a="chain:\n  - swich\n", b="chain: []\n")
    refused = BuildProcess(specs, tmp_path / "out").wait()
    assert refused == build_each(specs, tmp_path / "out")
    assert "did you mean" in refused["a"]


def test_a_process_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_process, "_MODULE", "no.such.module")
    specs = write(tmp_path, a="chain: [relu]\n", b="chain: [tanh]\n")
    refused = BuildProcess(specs, tmp_path / "out").wait()
    assert refused.keys() == {"a", "b"}
    for reason in refused.values():
        assert "ended with code 1" in reason
        assert "No module named" in reason
