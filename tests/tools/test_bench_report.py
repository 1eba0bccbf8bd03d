"""What the benchmark shows of a record: means, the table, the picture, the README's part."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from conftest import ROOT
from rich.console import Console
from shared.sample_records import cell, sample

from fusegen.base.errors import UserError
from fusegen.tools.bench import chart, markdown, record, summary, table
from fusegen.tools.bench.record import Record


def test_means_and_targets() -> None:
    assert summary.geometric_mean([2.0, 8.0, None]) == pytest.approx(4.0)
    assert summary.geometric_mean([None]) is None
    assert summary.best_compile_ms(cell()) == 0.18
    assert summary.best_compile_ms(cell(compile_ms=None, compile_max_autotune_ms=None)) is None
    assert summary.multiple(cell(), "eager") == pytest.approx(7.2)
    assert summary.speedup(cell(), "best compile") == pytest.approx(0.18 / 0.13)
    assert summary.misses(cell()) == []
    assert summary.misses(cell(fusegen_ms=0.136)) == ["over 1.08 x limit"]
    assert summary.misses(cell(fusegen_ms=0.136, direction="backward")) == []
    assert summary.misses(cell(fusegen_ms=0.136, tensor_bytes=2**26)) == []
    assert summary.misses(cell(fusegen_ms=0.19)) == ["over 1.08 x limit", "slower than compile"]
    assert summary.misses(cell(kind="model", fusegen_ms=0.18)) == []
    found = sample()
    parts = summary.parts(found.cells)
    assert {k: len(v) for k, v in parts.items()} == {
        "tails forward": 6, "tails backward": 6, "tails": 12,
        "models forward+backward": 1, "models": 1,
    }  # fmt: skip
    mean = math.prod([1.0, 1.0, 1.1, 1.1, 2.0, 2.0]) ** (1 / 6)
    assert summary.mean_multiple(parts["tails forward"], "fusegen") == pytest.approx(mean)


def test_the_table_has_a_row_a_cell() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    shown = table.cells_table(sample())
    assert shown.row_count == len(sample().cells)
    console.print(shown)
    console.print(table.means_table(sample()))
    text = console.export_text()
    assert "8192x512x8192" in text
    assert "slower than compile" in text
    assert "tails forward" in text


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg"):
        chart.draw(sample(), tmp_path / name)
    one, two = (tmp_path / name for name in ("one.svg", "two.svg"))
    assert one.read_bytes() == two.read_bytes()
    assert "<dc:date>" not in one.read_text()
    with pytest.raises(UserError, match=r"\.svg or \.png"):
        chart.draw(sample(), tmp_path / "one.jpg")
    with pytest.raises(UserError, match="no tails"):
        chart.draw(Record({"device": "cpu"}), two)


def test_a_readme_is_updated_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- bench:cuda -->\nold\n<!-- /bench:cuda -->\nafter\n")
    assert markdown.update(path, sample())
    assert not markdown.update(path, sample())
    text = path.read_text()
    assert text.startswith("before\n<!-- bench:cuda -->\n") and text.endswith("\nafter\n")
    assert "| `a` | fp32 | **1.00** | 1.44 | 7.20 | **1.00** | 1.44 | 7.20 |" in text
    assert "old" not in text
    path.write_text("no markers\n")
    with pytest.raises(UserError, match="bench:cuda"):
        markdown.update(path, sample())


@pytest.mark.parametrize("name", ["h200", "cpu"])
def test_the_readmes_table_is_the_committed_record(name: str) -> None:
    path = ROOT / "benchmarks" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"benchmarks/{name}.json is not there yet")
    kept = record.read(path)
    opening, closing = markdown.markers(kept)
    text = (ROOT / "README.md").read_text()
    assert opening in text and closing in text
    assert text.split(opening)[1].split(closing)[0] == "\n" + markdown.render(kept)
