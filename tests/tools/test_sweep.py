"""Random cells: the same for a seed, of every form, checked before they are timed. No test asserts a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import python
from shared.command import fusegen_here
from torch import Tensor

from fusegen import chain, spec
from fusegen.base.errors import UserError
from fusegen.tools.bench import plain
from fusegen.tools.bench.sweep import build, correct, measure, record, tensors
from fusegen.tools.bench.sweep.cases import DTYPES, Case, Draw, Format, parse_megabytes
from fusegen.tools.bench.sweep.record import RandomCell, RandomRecord
from fusegen.tools.bench.sweep.shapes import draw_shape
from fusegen.tools.bench.sweep.specs import FORMS, DrawnSpec, draw_spec

TINY = (0.002, 0.02)


def draw(seed: int = 3, cells: int = 6 * len(FORMS), **more: Any) -> Draw:
    return Draw(seed, cells, TINY, **more)


def derived(drawn: DrawnSpec) -> chain.Chain:
    return chain.derive(spec.parse(drawn.text, drawn.name))


def numbers(case: Case) -> dict[str, int]:
    return {} if case.groups is None else {"groups": case.groups}


def a_case(chosen: str, shape: tuple[int, ...], **more: Any) -> Case:
    given = {"groups": None, "format": Format(), "dtype": "float32", **more}
    drawn = DrawnSpec("a_case", "any", chosen, 0 if len(shape) < 3 else len(shape), ("float32",))
    return Case(0, drawn, shape, directions=("forward", "backward"), **given)


def made(case: Case) -> tuple[chain.Chain, Any]:
    of_case = derived(case.spec)
    return of_case, tensors.make_set(case, of_case, torch.Generator().manual_seed(1))


def test_a_seed_draws_the_same_in_every_process() -> None:
    code = (
        "from fusegen.tools.bench.sweep.cases import Draw; print(Draw(3, 78, (1.0, 9.0)).cases())"
    )
    done = python(code, PYTHONHASHSEED="5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Draw(3, 78, (1.0, 9.0)).cases())


def test_another_seed_draws_something_else_and_more_cells_keep_the_specs() -> None:
    few, many = draw(cells=12), draw(cells=60)
    assert many.specs()[:2] == few.specs()
    assert {s.text for s in many.specs()}.isdisjoint(s.text for s in draw(seed=4).specs())
    shapes = [case.shape for case in many.cases()]
    assert len(set(shapes)) > len(shapes) // 2


def test_cells_are_as_many_as_asked_and_specs_take_turns() -> None:
    for count in (1, 6, 7, 25):
        cases = draw(cells=count).cases()
        assert sum(len(case.directions) for case in cases) == count
    names = [case.spec.name for case in draw(cells=24).cases()]
    assert names == [f"random_3_{n}" for n in (0, 1, 2, 3)] * 3
    forward = draw(cells=5, directions=("forward",)).cases()
    assert [case.directions for case in forward] == [("forward",)] * 5


def test_every_form_takes_its_turn() -> None:
    for turn in (0, 1):
        part = range(turn * len(FORMS), (turn + 1) * len(FORMS))
        assert {draw_spec(0, index, DTYPES).form for index in part} == set(FORMS)


@pytest.mark.parametrize("seed", range(40))
def test_sizes_are_within_their_bounds(seed: int) -> None:
    low, high = 64.0, 512.0
    for case in Draw(seed, 6 * len(FORMS), (low, high)).cases():
        dtype = getattr(torch, case.dtype)
        size = math.prod(case.shape) * dtype.itemsize / 1e6
        assert size <= 1.05 * high, case.title  # sizes are made even
        assert size >= 0.6 * low, case.title
        assert case.dtype in case.spec.dtypes
        assert len(case.shape) == case.spec.rank or not case.spec.rank
        if not case.spec.rank:
            assert case.shape[-1] <= 1 << 20
            assert math.prod(case.shape[:-1]) <= 10**7
        if case.groups is not None:
            channels = case.shape[1]
            assert channels % case.groups == 0
            assert math.prod(case.shape[1:]) // case.groups >= 4
        if case.format.name == "channels_last":
            assert case.spec.rank
        assert all(max(dims) < len(case.shape) - 1 for dims in case.ones.values())


def test_small_sizes_reach_one_row_and_one_column() -> None:
    import random

    drawn = draw_spec(
        0, [draw_spec(0, i, DTYPES).form for i in range(13)].index("pointwise"), DTYPES
    )
    drawn = replace(drawn, rank=0)
    shapes = [draw_shape(drawn, random.Random(n), 3000)[0] for n in range(400)]
    assert min(s[-1] for s in shapes) == 1
    assert min(math.prod(s[:-1]) for s in shapes) == 1


@pytest.mark.parametrize("index", range(len(FORMS)))
def test_a_drawn_chain_is_right_by_torch_itself(index: int) -> None:
    """What is drawn can be derived, and eager torch agrees with float64: no draw overflows or cancels."""
    for case in [c for c in draw().cases() if c.spec.name == f"random_3_{index}"]:
        of_case, given = made(case)
        eager = plain.tail(of_case, numbers(case))
        assert eager(*given.given).shape == given.cotangent.shape
        found = correct.wrong(
            of_case, given, numbers(case), eager, eager, backward=len(case.directions) > 1
        )
        assert found is None, f"{case.title}: {found}"
        for tensor in given.given:
            assert not tensor.is_floating_point() or tensor.count_nonzero() == tensor.numel()


@pytest.mark.parametrize("index", range(len(FORMS)))
def test_torch_compile_traces_a_drawn_chain_whole(index: int) -> None:
    """Otherwise its time is missing from the record, and from what a cell is compared with."""
    case = draw(seed=5).cases()[index]
    of_case, given = made(case)
    torch.compiler.reset()
    traced = torch.compile(
        plain.tail(of_case, numbers(case)), fullgraph=True, dynamic=False, backend="eager"
    )
    assert traced(*given.given).shape == given.cotangent.shape


def test_memory_formats() -> None:
    text = "dims: 4\nchain:\n  - relu\n"
    _, last = made(a_case(text, (2, 6, 3, 4), format=Format("channels_last")))
    assert last.given[0].is_contiguous(memory_format=torch.channels_last)
    assert last.cotangent.is_contiguous(memory_format=torch.channels_last)
    _, chunk = made(a_case(text, (2, 6, 3, 4), format=Format("chunk", 3, 1)))
    assert chunk.given[0].stride() == (216, 12, 4, 1)
    assert chunk.given[0].storage_offset() == 72
    rows = "chain:\n  - relu\n"
    _, offset = made(a_case(rows, (5, 6), format=Format("offset")))
    assert (offset.given[0].stride(), offset.given[0].storage_offset()) == ((7, 1), 1)
    heads = replace(a_case(rows, (2, 3, 4, 8)), format=Format("transposed"))
    heads = replace(heads, spec=replace(heads.spec, rank=0))
    assert made(heads)[1].given[0].stride() == (96, 8, 24, 1)
    assert all(t.given[0].is_leaf and t.given[0].requires_grad for t in (last, chunk, offset))


def test_a_broadcast_operand_is_smaller() -> None:
    text = "operands: {full1: full}\nchain:\n  - mul: full1\n"
    case = a_case(text, (4, 6), ones={"full1": (0,)})
    of_case, given = made(case)
    assert given.given[1].shape == (1, 6)
    assert tensors.bytes_that_must_move(of_case, given, "forward") == (24 + 6 + 24) * 4
    assert tensors.bytes_that_must_move(of_case, given, "backward") == (24 + 6 + 24 + 24 + 6) * 4


@pytest.mark.parametrize(
    ("text", "shape", "forward", "backward"),
    [
        # x twice and y; x and the cotangent twice, and the gradient. The rest: four numbers per channel.
        (
            "arguments: {c: int}\nchain:\n  - batch_norm: {features: c}\n",
            (10, 8),
            3 * 80 + 2 * 32,
            5 * 80 + 2 * 32 + 16,
        ),
        # The norm is written and read, or x is read twice; x, its gradient, and twice two tensors more.
        (
            "dims: 3\nchain:\n  - normalize: {dim: 2}\n  - amax: {dim: 1}\n",
            (5, 4, 6),
            2 * 120 + 30,
            120 + 30 + 120 + 150,
        ),
        ("chain:\n  - mean\n", (10, 8), 81, 1 + 80),
    ],
)
def test_bytes_that_must_move(
    text: str, shape: tuple[int, ...], forward: int, backward: int
) -> None:
    of_case, given = made(a_case(text, shape))
    moved = [
        tensors.bytes_that_must_move(of_case, given, direction) // 4
        for direction in ("forward", "backward")
    ]
    assert moved == [forward, backward]


def spoiled(how: str) -> Callable[..., Tensor]:
    """Return tanh(x) * col, with a mistake."""

    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, col: Tensor) -> Tensor:
            ctx.save_for_backward(x, col)
            y = torch.tanh(x) * col
            if how == "few elements":
                y[-1, -5:] *= 1.0002
            if how == "unwritten":
                y = torch.empty_like(x).copy_(torch.where(torch.arange(64) < 63, y, torch.nan))
            if how == "shape":
                y = y[:, :-1]
            return y.double() if how == "dtype" else y

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            x, col = ctx.saved_tensors
            y = torch.tanh(x)
            grad_x, grad_col = grad * col * (1 - y * y), (grad * y).sum(0)
            if how == "grad_x":
                grad_x = grad_x + 1e-3
            if how == "grad_col":
                grad_col[0] *= 1.1
            return grad_x, grad_col

    def spoil(x: Tensor, col: Tensor) -> Tensor:
        y: Tensor = Spoiled.apply(x, col)  # type: ignore[no-untyped-call]
        return y + 1 if how == "without" and not torch.is_grad_enabled() else y

    return spoil


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("", None),
        ("few elements", "the value: 5 of 2560 elements are far off"),
        ("unwritten", "the value: 40 of 2560 elements are not finite"),
        ("shape", "the value: shape"),
        ("dtype", "the value: torch.float64, not torch.float32"),
        ("grad_x", "the gradient of x: the mean error"),
        ("grad_col", "the gradient of col: "),
        ("without", "the value without gradients: "),
    ],
)
def test_a_wrong_kernel_is_found(how: str, message: str | None) -> None:
    text = "operands: {col: col}\nchain:\n  - tanh\n  - mul: col\n"
    of_case, given = made(a_case(text, (40, 64)))
    eager = plain.tail(of_case, {})
    found = correct.wrong(of_case, given, {}, spoiled(how), eager, backward=True)
    assert found is None if message is None else re.match(message, found or ""), found
    alone = correct.wrong(of_case, given, {}, spoiled(how), None, backward=True)
    assert (alone is None) == (message is None), alone


@pytest.mark.parametrize(("by", "count", "right"), [(1e-7, 1, True), (0.1, 20, False)])
def test_a_row_with_an_argument_at_a_kink_may_be_on_either_side(
    by: float, count: int, right: bool
) -> None:
    """The sums of the row's gradient have another term then: all of its elements are far off."""
    rows, columns = 20000, 64
    text = "order: 1\nchain:\n- layer_norm: {eps: 0.00001}\n- relu\n"
    of_case, given = made(a_case(text, (rows, columns)))
    x = given.given[0]
    with torch.no_grad():  # the first two are below the mean, in eager too, by less than is rounded
        x[7] = torch.cat([torch.zeros(2), x[7, :31], -x[7, :31]])
        x[7] *= -torch.nn.functional.layer_norm(x, (columns,))[7, 0].sign()
        x[7, :2] = -1e-12
    place = torch.zeros(rows, columns)
    place[7, :count] = by

    def ours(x: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(x, (columns,)).add(place).relu()

    found = correct.wrong(of_case, given, {}, ours, plain.tail(of_case, {}), backward=True)
    assert (found is None) == right, found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, Tensor], Tensor]], None]:
    """Makes packages of torch's own functions, which compiles nothing; a function spoils their values."""

    def of(spoil: Callable[[str, Tensor], Tensor]) -> None:
        def load(name: str, out: Path) -> SimpleNamespace:
            of_spec = measure._derived(out / "specs" / f"{name}.yaml")

            def apply(x: Tensor, *operands: Tensor, training: bool = True, **given: int) -> Tensor:
                del training
                return spoil(name, plain.tail(of_spec, given)(x, *operands))

            return SimpleNamespace(apply=apply)

        monkeypatch.setattr(measure, "load_package", load)

    return of


def sweep(folder: Path, cells: int = 24, **more: Any) -> measure.Sweep:
    found = measure.Sweep(
        draw(cells=cells), "cpu", folder, compile=False, rounds=1, output=folder / "record.json"
    )
    build.write_specs(found.draw.specs(), folder)
    return replace(found, **more)


def silent(text: str) -> None:
    del text


CELL_KEYS = [
    *("case", "spec", "form", "steps", "shape", "dtype", "memory_format"),
    *("direction", "tensor_bytes", "limit_bytes", "state"),
    *("limit_ms", "fusegen_ms", "eager_ms", "compile_ms", "copy_ms"),
]


def test_the_truth_does_not_depend_on_the_memory_format() -> None:
    """Torch's own instance norm of one sample has a wrong gradient if that of its value is channels-last."""
    text = "dims: 4\norder: 1\narguments: {channels: int}\nchain:\n"
    text += "- instance_norm: {features: channels, affine: true}\n- tanh\n"
    case = a_case(text, (1, 16, 5, 4), format=Format("channels_last"))
    of_case, given = made(case)

    def by_formula(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        scale = torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + 1e-5)
        return torch.tanh(centred * scale * weight.view(-1, 1, 1) + bias.view(-1, 1, 1))

    assert correct.wrong(of_case, given, {}, by_formula, None, backward=True) is None


def test_a_run_checks_times_and_records(
    fake: Callable[[Callable[[str, Tensor], Tensor]], None], tmp_path: Path
) -> None:
    fake(lambda name, y: y * 1.5 if name == "random_3_1" else y)
    wanted = sweep(tmp_path)
    refused = {"random_3_2": "the compiler refuses it"}
    found = measure.run(wanted, refused, silent)
    text = json.loads((tmp_path / "record.json").read_text())
    assert list(text) == ["machine", "seed", "draw", "specs", "cells"]
    assert (text["seed"], text["draw"]["cells"]) == (3, 24)
    assert text["specs"]["random_3_0"] == draw_spec(3, 0, DTYPES).text
    states = {(cell["spec"], cell["state"]) for cell in text["cells"]}
    assert states == {
        ("random_3_0", "timed"),
        ("random_3_1", "wrong"),
        ("random_3_2", "failed"),
        ("random_3_3", "timed"),
    }
    assert [cell["state"] for cell in text["cells"]] == ["wrong"] * 6 + ["failed"] * 6 + [
        "timed"
    ] * 12
    for cell in text["cells"]:
        kept = [key for key in cell if key not in ("broadcast", "groups", "note")]
        assert kept == [k for k in CELL_KEYS if cell["state"] == "timed" or k != "limit_bytes"]
        assert (cell["fusegen_ms"] is None) == (cell["state"] != "timed")
        assert cell["state"] == "timed" or cell["note"]
        assert cell["compile_ms"] is None
    assert record.read(tmp_path / "record.json").worst_first() == found.worst_first()
    with pytest.raises(UserError, match="no record of"):
        record.read(tmp_path / "specs" / "random_3_0.yaml")


def test_a_run_that_ends_early_is_resumed(
    fake: Callable[[Callable[[str, Tensor], Tensor]], None], tmp_path: Path
) -> None:
    fake(lambda _, y: y)
    said: list[str] = []
    measure.run(sweep(tmp_path, cells=6, deadline=0.0), {}, said.append)
    assert said == ["--seconds are over: 3 of 3 cases are left"]
    wanted = sweep(tmp_path, cells=6, resume=True)
    first = measure.run(wanted, {}, silent)
    assert len(first.cells) == 6
    first.cells = first.cells[1:]
    first.write(tmp_path / "record.json")
    said.clear()
    again = measure.run(wanted, {}, said.append)
    assert len(said) == 1
    assert len(again.cells) == 6
    with pytest.raises(UserError, match="leave --resume away"):
        measure.run(replace(wanted, draw=draw(seed=9, cells=6)), {}, silent)


def test_a_lost_gpu_ends_the_run(
    fake: Callable[[Callable[[str, Tensor], Tensor]], None], tmp_path: Path
) -> None:
    def lose(name: str, y: Tensor) -> Tensor:
        if name == "random_3_1":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return y

    fake(lose)
    found = measure.run(sweep(tmp_path), {}, silent)
    assert [c.state for c in found.cells] == ["timed"] * 2 + ["failed"] * 2


def a_cell(**more: Any) -> RandomCell:
    given: dict[str, Any] = {
        **{"case": 0, "spec": "random_0_0", "form": "pointwise", "steps": "relu", "shape": (4, 6)},
        **{"dtype": "float32", "memory_format": "contiguous", "broadcast": {}, "groups": None},
        **{"direction": "forward", "tensor_bytes": 96, "limit_bytes": 192, "limit_ms": 1.0},
        **{"fusegen_ms": 1.1, "eager_ms": 3.0, "compile_ms": 2.0, "copy_ms": 1.0},
    }
    return RandomCell(**{**given, **more})


def test_the_worst_cells_come_first() -> None:
    cells = [
        a_cell(case=1),
        a_cell(case=2, fusegen_ms=1.8),
        a_cell(case=3, compile_ms=0.5),
        a_cell(case=4, state="failed", fusegen_ms=None),
        a_cell(case=5, state="wrong", fusegen_ms=None),
        a_cell(case=6, direction="backward", fusegen_ms=1.2, compile_ms=None),
    ]
    found = RandomRecord({"chip": "a chip"}, 7, {}, {}, cells)
    assert [cell.case for cell in found.worst_first()] == [5, 4, 3, 2, 6, 1]
    assert cells[2].over_best == pytest.approx(2.2)
    assert cells[5].over_best == pytest.approx(0.4)
    assert cells[0].badness == pytest.approx(1.1 / 1.15)


def test_sizes_of_the_command_line() -> None:
    assert parse_megabytes(None, "cuda") == (64.0, 512.0)
    assert parse_megabytes("0.5:8", "cuda") == (0.5, 8.0)
    for wrong in ("8", "8:4", "0:4", "a:b", "1:inf"):
        with pytest.raises(UserError, match="--megabytes"):
            parse_megabytes(wrong, "cpu")


def test_only_what_cannot_be_built_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    specs = draw(cells=42).specs()
    tried: list[list[str]] = []

    def refuse(paths: list[Path], **options: Any) -> None:
        assert options["backend"] == "cpu"
        tried.append([path.stem for path in paths])
        if "random_3_4" in tried[-1]:
            raise UserError("it is wrong")

    monkeypatch.setattr(build.builder, "build", refuse)
    assert build.build(specs, tmp_path, "cpu") == {"random_3_4": "it is wrong"}
    assert len(tried) < 2 * len(specs) - 1
    assert {name for names in tried for name in names} == {s.name for s in specs}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--random", "1", "scale_softmax"], "draws the specs"),
        (["--random", "1", "--shape", "4x4"], "draws the specs"),
        (["--random", "1", "--megabytes", "4"], "expected LOW:HIGH"),
        (["--random", "1", "--dtype", "tf32"], "--random --dtype tf32"),
        (["--cells", "4"], "need --random SEED"),
        (["--build-only"], "need --random SEED"),
        (["--random", "1", "--warm", "--shard", "3/2"], "--shard 3/2"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = fusegen_here("bench", "--device", "cpu", "--out", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_builds_checks_and_times(tmp_path: Path) -> None:
    """And renders what it recorded, word for word."""
    out, output = str(tmp_path / "packages"), str(tmp_path / "record.json")
    chosen = ["--random", "7", "--cells", "2", "--megabytes", "0.01:0.02", "--dtype", "float32"]
    options = ["--device", "cpu", "--out", out, "--rounds", "1", "--no-compile"]
    built = fusegen_here("bench", *chosen, *options, "--build-only")
    assert built.returncode == 0, built.stderr
    done = fusegen_here("bench", *chosen, *options, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "C++" not in done.stderr  # it was built
    assert "by form" in done.stdout
    assert len(record.read(Path(output)).cells) == 2
    again = fusegen_here("bench", "--render", output)
    assert again.stdout == done.stdout
    assert again.returncode == 0
