"""A model's graph on a page: its units, where their boxes are, and what is marked."""

from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ET

import pytest
import torch
from shared.report_pages import model_report
from torch import nn

import fusegen
from fusegen.models.graph_picture import MOST, picture
from fusegen.models.graph_units import Unit
from fusegen.models.layered import layered
from fusegen.tools.report.model import part_of


class Attention(nn.Module):
    """Batch norm, a projection in three, attention, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.BatchNorm1d(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [h.reshape(2, 4, 4, 4) for h in self.qkv(self.norm(x)).chunk(3, -1)]
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(8, 16)
        return nn.functional.gelu(self.out(mixed) + x) * 2


@pytest.mark.usefixtures("specs_by_torch")
def test_the_units_are_what_runs_and_each_region_is_one() -> None:
    fused = fusegen.fuse(Attention(), torch.randn(8, 16), everything=True)
    (units,) = fusegen.report(fused).units
    assert [(unit.kind, *unit.ops) for unit in units] == [
        ("input", "input 0"),
        ("op", "batch_norm"),
        ("op", "linear"),
        ("op", "scaled_dot_product_attention"),
        ("op", "linear"),
        ("region", "add", "gelu", "mul"),
        ("output", "result"),
    ]
    assert [set(unit.inputs) for unit in units] == [set(), {0}, {1}, {2}, {3}, {0, 4}, {5}]
    assert units[5].shape == "[8, 16]"
    assert units[5].package.startswith("add_gelu_mul_")


def graphs() -> list[tuple[list[tuple[float, float]], list[list[int]]]]:
    draw = random.Random(1)
    found = []
    for _ in range(60):
        count = draw.randint(1, 40)
        inputs = [
            draw.sample(range(n), min(n, draw.choice([0, 1, 1, 1, 2, 4]))) for n in range(count)
        ]
        sizes = [(draw.uniform(20, 300), draw.uniform(20, 90)) for _ in range(count)]
        found.append((sizes, inputs))
    return found


def test_boxes_are_apart_and_no_arrow_runs_through_one() -> None:
    for sizes, inputs in graphs():
        layout = layered(sizes, inputs)
        boxes = [
            (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            for (x, y), (w, h) in zip(layout.centres, sizes, strict=True)
        ]
        for left, top, right, bottom in boxes:
            assert left >= -1e-6
            assert right <= layout.width + 1e-6
            assert top >= -1e-6
            assert bottom <= layout.height + 1e-6
        for a, b in itertools.combinations(boxes, 2):
            apart = a[2] + 5 < b[0] or b[2] + 5 < a[0] or a[3] + 5 < b[1] or b[3] + 5 < a[1]
            assert apart, (a, b)
        ends = [(source, box) for box, read in enumerate(inputs) for source in read]
        for (source, box), points in zip(ends, layout.arrows, strict=True):
            assert layout.centres[source][1] < layout.centres[box][1]
            assert points[0] == (layout.centres[source][0], boxes[source][3])
            assert points[-1] == (layout.centres[box][0], boxes[box][1])
            own = {source, box}
            others = [each for n, each in enumerate(boxes) if n not in own]
            for (x, y), (to_x, to_y) in itertools.pairwise(points):
                low, high = sorted((x, to_x))
                assert y <= to_y + 1e-6
                for left, top, right, bottom in others:
                    beside = high < left or right < low
                    assert beside or to_y < top + 1e-6 or bottom < y + 1e-6


def test_a_region_is_marked_if_it_is_fused_and_a_link_if_it_has_a_chapter() -> None:
    (units,) = model_report().units
    root = ET.fromstring(picture(units, {"one"}, {"one"}))
    looks = [each.get("class") for each in root if each.get("class") != "arrows"]
    assert looks == [u.kind for u in units[:-2]] + ["unfused", "output"]
    assert [a.get("href") for a in root.iter("a")] == ["#one"]
    (region,) = (each for each in root if each.get("class") == "region")
    assert [t.text for t in region.iter("text")] == ["add"] * 7 + ["and 5 more", "[8, 16]"]
    assert not list(ET.fromstring(picture(units, {"one"}, ())).iter("a"))


def test_a_large_graph_is_drawn_in_part_and_the_page_says_so() -> None:
    chain = [Unit("op", ("linear",), "[8]", "", (n - 1,) if n else ()) for n in range(MOST + 7)]
    report = model_report()
    report.units = [tuple(chain), tuple(chain)]
    ((drawn, left),) = part_of("net.py:Net", report).graphs  # alike: drawn once
    assert left == 7
    assert drawn.count("<rect") == MOST
