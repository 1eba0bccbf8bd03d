"""The benchmark: what it measures, and how it records it. No test asserts a time."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import NAMES, ROOT
from shared.command import fusegen, fusegen_here
from shared.originals import ORIGINALS
from shared.sample_records import cell, sample
from shared.segment_originals import SEGMENTS

from fusegen.base.errors import UserError
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.bench import (
    cells,
    command,
    compiling,
    machine,
    measure,
    plain,
    record,
    subjects,
    table,
    timing,
)
from fusegen.tools.bench.cells import Group
from fusegen.tools.bench.record import Record
from fusegen.tools.check.random_operands import random_operands
from fusegen.tools.check.reference import run_chain

TAIL_KEYS = [
    *("kind", "spec", "dtype", "rows", "cols", "direction", "tensor_bytes"),
    *("fusegen_ms", "eager_ms", "compile_ms", "compile_max_autotune_ms", "copy_ms", "limit_ms"),
]
MACHINE_KEYS = {
    *("chip", "driver", "cuda", "torch", "triton", "python", "nvcc", "command", "date", "commit")
}


def spec(name: str) -> Path:
    return ROOT / "specs" / f"{name}.yaml"


def run_of(groups: list[Group], out: Path, modes: int = 0, **options: object) -> measure.Run:
    choice = subjects.Choice("cpu", out, dict(list(compiling.MODES.items())[:modes]))
    wanted = measure.Run(groups, choice, cells.VALID_DIRECTIONS, rounds=1)
    return replace(wanted, **options)  # type: ignore[arg-type]


def silent(text: str) -> None:
    del text


def test_the_default_run_is_the_reference_tails_and_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = cells.groups("cuda", [])
    assert sum(g.kind == "tail" for g in found) == 5 * 3 * 6
    assert sum(g.kind == "model" for g in found) == 10
    assert sum(len(g.directions(cells.VALID_DIRECTIONS)) for g in found) == 200
    assert all(g.spec.is_file() for g in found)
    assert len(cells.groups("cpu", [], models=False)) == 5 * 2 * 4
    only = cells.groups("cuda", [spec("scale_softmax")], ["tf32", "float16"])
    assert {(g.kind, g.dtype) for g in only} == {("tail", "float16")}


def test_a_cell_of_more_dims_keeps_them(tmp_path: Path) -> None:
    image = cell(rows=64, cols=256, trailing=(56, 56))
    Record({"device": "cuda"}, [image, cell()]).write(tmp_path / "record.json")
    assert record.read(tmp_path / "record.json").cells == [image, cell()]
    assert [table.shape(c) for c in (image, cell())] == ["64x256x56x56", "8192x8192"]
    assert image.key != replace(image, trailing=(28, 112)).key


def test_the_suite_of_the_vocabulary_has_a_spec_for_each_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert {p.stem for p in Path("benchmarks/specs").glob("*.yaml")} == set(cells.VOCABULARY)
    for device in ("cuda", "cpu"):
        for group in cells.vocabulary(device):
            rank = pipeline.derive(group.spec).layout.rank
            assert rank in (0, 2 + len(group.trailing)), group.title
    titles = [g.title for g in cells.vocabulary("cuda", ["float16"])]
    assert "tail channel_softmax float16 64x256x56x56" in titles


def test_shards_part_the_groups() -> None:
    found = cells.groups("cuda", [])
    parts = [cells.shard(found, f"{i}/7") for i in range(1, 8)]
    assert sorted((g for part in parts for g in part), key=found.index) == found
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(UserError, match="--shard"):
            cells.shard(found, wrong)


def test_shapes_and_words_are_checked() -> None:
    assert cells.parse_shape("64x128") == (64, 128)
    assert cells.parse_shape("64x256x56x56") == (64, 256, 56, 56)
    for wrong in ("64", "x", "64x0", "axb", "1x2x"):
        with pytest.raises(UserError, match="--shape"):
            cells.parse_shape(wrong)
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        cells.one_of("--dtype", ["bfloat6"], cells.VALID_DTYPES)


@pytest.mark.parametrize("name", NAMES)
def test_the_chain_by_hand_is_the_chain(name: str, derived: Callable[[str], Chain]) -> None:
    chain = derived(name)
    numbers = {a.name: float(a.default or 1.5) for a in chain.spec.arguments if a.type == "float"}
    x = torch.randn(33, 17, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    operands = random_operands(chain, x, generator)
    kept = {n: t.clone() for n, t in operands.items()}  # batch norm moves its buffers
    got = plain.tail(chain, numbers)(x, *operands.values())
    if chain.random:
        assert got.shape == x.shape
        return
    torch.testing.assert_close(got, run_chain(chain.spec, x, kept, numbers, training=True))


def test_a_formula_by_hand_is_the_formula(tmp_path: Path) -> None:
    path = tmp_path / "formulas.yaml"
    path.write_text(
        "arguments:\n  t: {type: float, default: 2.0}\nchain:\n"
        '  - expr: "where(x < t, x * exp(t) + 1, abs(x)) / (1 + max(x)**2)"\n'
        '  - expr: "softplus(x) * normcdf(x) + normpdf(x) * cos(x) - sqrt(x**2 + 1) * mean(x)"\n'
    )
    chain = pipeline.derive(path)
    x = torch.randn(5, 7, dtype=torch.float64) * 3
    got = plain.tail(chain, {"t": 2.0})(x)
    torch.testing.assert_close(got, run_chain(chain.spec, x, {}, {"t": 2.0}))


def test_halves_by_hand_are_the_halves(tmp_path: Path) -> None:
    path = tmp_path / "turned.yaml"
    path.write_text("operands: {c: full, s: full}\nchain:\n- rope: {cos: c, sin: s}\n")
    chain = pipeline.derive(path)
    x, c, s = torch.randn(3, 5, 8, dtype=torch.float64)
    got = plain.tail(chain, {})(x, c, s)
    torch.testing.assert_close(got, run_chain(chain.spec, x, {"c": c, "s": s}, {}))


@pytest.mark.parametrize(
    "name", ["conv2d_mean_softmax_gate", "linear_subtract_mean_logsumexp_gelu_residual"]
)
def test_by_hand_too_a_step_uses_what_earlier_ones_gave(name: str) -> None:
    """Values of other segments, the model's input, and what makes a mean larger again."""
    chain = pipeline.derive(ROOT / "tests" / "segments" / f"{name}.yaml")
    cls, arguments, inputs, (_, shape, *_) = SEGMENTS[name]
    x = torch.randn(shape, dtype=torch.float64)
    operands = random_operands(chain, x, torch.Generator().manual_seed(0))
    got = plain.tail(chain, {})(x, *operands.values())
    torch.testing.assert_close(got, run_chain(chain.spec, x, operands, {}))
    original, x = cls(*arguments), torch.randn(inputs)
    torch.testing.assert_close(plain.Model(chain, original)(x), original(x))


@pytest.mark.parametrize("name", sorted(set(ORIGINALS) - {"matmul_dropout_softmax"}))
def test_the_model_by_hand_is_the_original(
    name: str, package: Callable[[str], ModuleType], derived: Callable[[str], Chain]
) -> None:
    original_type, arguments = ORIGINALS[name]
    original, fused = original_type(*arguments), package(name).Module(*arguments)
    model = plain.Model(derived(name), fused)
    model.load_state_dict(original.state_dict())
    x = torch.randn(8, 24)
    torch.testing.assert_close(model(x), original(x))
    assert all(a is b for a, b in zip(model.parameters(), fused.parameters(), strict=True))


def test_the_limit_counts_each_tensor_once(generated: Path) -> None:
    assert measure.limit_ms(moved=2000, tensor_bytes=1000, copy_ms=0.5) == 0.5
    assert measure.limit_ms(moved=3000, tensor_bytes=1000, copy_ms=0.5) == 0.75
    group = Group("tail", spec("matmul_add_swish_tanh_gelu_hardtanh"), "bfloat16", 4, 10)
    example = subjects.subject(group, subjects.Choice("cpu", generated, {})).example
    full, two_cols = 4 * 10 * 2, 2 * 10 * 2
    assert example.bytes_moved("forward") == 2 * full + two_cols
    assert example.bytes_moved("backward") == 3 * full + 2 * two_cols  # and their gradients
    assert example.cotangent.nbytes == full


def test_a_run_writes_its_cells_and_resumes(generated: Path, tmp_path: Path) -> None:
    groups = [
        Group("tail", spec("scale_softmax"), "float32", 5, 16),
        Group("tail", spec("matmul_dropout_softmax"), "bfloat16", 5, 16),
    ]
    output = tmp_path / "deep" / "record.json"
    measure.run(run_of(groups[:1], generated, output=output, directions=["forward"]), silent)
    first = json.loads(output.read_text())
    assert len(first["cells"]) == 1
    assert set(first["machine"]) >= MACHINE_KEYS
    said: list[str] = []
    measure.run(run_of(groups, generated, output=output, resume=True), said.append)
    found = json.loads(output.read_text())["cells"]
    assert found[0] == first["cells"][0]
    assert [c["direction"] for c in found] == ["forward", "backward"] * 2
    assert len(said) == 3
    for given in found:
        assert list(given) == TAIL_KEYS
        assert given["compile_ms"] is None and given["compile_max_autotune_ms"] is None
        assert 0 < given["fusegen_ms"] == float(f"{given['fusegen_ms']:.5g}")
    assert [c["tensor_bytes"] for c in found] == [320, 320, 160, 160]
    assert not list(output.parent.glob(".*"))
    again = measure.run(run_of(groups, generated, output=output, resume=True), said.append)
    assert len(said) == 3
    assert again.cells == record.read(output).cells


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_a_record_says_of_which_commit_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSEGEN_COMMIT", raising=False)
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    commit = machine.describe("cpu")["commit"]
    assert commit is not None
    assert head.stdout.startswith(commit.rstrip("+"))


def test_another_machines_record_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    sample().write(path)
    same = {"device": "cuda", "chip": "a chip", "torch": "2.11.0", "driver": "1", "commit": "abc"}
    assert record.resumed(path, same).machine["commit"] == "abc"
    record.resumed(path, same).write(path)
    assert record.resumed(path, {**same, "commit": "def"}).machine["commit"] == "abc | def"
    with pytest.raises(UserError, match="another chip"):
        record.resumed(path, {**same, "chip": "another chip"})
    path.write_text('{"machine": {}, "cells": [{"kind": "tail"}]}')
    with pytest.raises(UserError, match="no record"):
        record.read(path)


@pytest.mark.parametrize("name", ["matmul_gelu_softmax", "gemm_batchnorm_scale_softmax"])
def test_a_model_is_measured_beside_its_linear(name: str, generated: Path) -> None:
    group = Group("model", spec(name), "tf32", 8, 32, 16)
    found = measure.run(run_of([group], generated), silent).cells
    assert [c.direction for c in found] == ["forward", "forward+backward"]
    for measured in found:
        assert measured.linear_ms == measured.limit_ms
        assert list(measured.to_json()) == [
            *TAIL_KEYS[:5], "in_features", *TAIL_KEYS[5:], "linear_ms"
        ]  # fmt: skip
    assert torch.get_float32_matmul_precision() == "highest"


def test_torch_compile_is_measured(generated: Path) -> None:
    group = Group("tail", spec("scale_softmax"), "float32", 8, 32)
    wanted = run_of([group], generated, modes=1, directions=["forward"])
    measure.warm(wanted, silent)
    (measured,) = measure.run(wanted, silent).cells
    assert measured.compile_ms is not None and measured.compile_ms > 0
    assert measured.compile_max_autotune_ms is None


class Scripted:
    """A clock that says what it is told to, call after call."""

    short_rounds = 7

    def __init__(self, said: Iterable[float | None]) -> None:
        self.said, self.count = iter(said), 0

    def __call__(self, call: Callable[[], object]) -> float | None:
        call()
        self.count += 1
        return next(self.said)


def test_variants_take_turns_and_late_calls_do_not_count() -> None:
    called: list[str] = []

    def variant(label: str) -> timing.Prepare:
        return lambda: lambda: called.append(label)

    clock = Scripted(itertools.cycle([None, 1.0]))
    times = timing.medians({"a": variant("a"), "b": variant("b")}, clock, rounds=4)
    assert set(times) == {"a", "b"}
    warm = 2 * (timing.WARM_CALLS + 2)  # and one that is timed, at the second try
    turns = ["".join(called[i : i + 4]) for i in range(warm, len(called), 4)]
    assert len(turns) == 4 and set(turns) == {"aabb", "bbaa"}
    with pytest.raises(RuntimeError, match="busy"):
        timing.medians({"a": variant("a")}, Scripted(itertools.repeat(None)), rounds=1)


def test_short_calls_are_timed_more_often() -> None:
    for ms, rounds in ((0.01, Scripted.short_rounds), (5.0, timing.ROUNDS)):
        clock = Scripted(itertools.repeat(ms))
        timing.medians({"a": lambda: str}, clock)
        assert clock.count == 1 + rounds


def test_a_deadline_ends_the_rounds_and_says_so() -> None:
    clock, deadline = Scripted(itertools.repeat(5.0)), timing.Deadline(0)
    assert timing.medians({"a": lambda: str}, clock, None, deadline, "it") == {"a": 5.0}
    assert clock.count == 1 + 3
    assert str(deadline) == (
        f"left out after 0 s, which --seconds sets: it, {timing.ROUNDS - 3} of {timing.ROUNDS} rounds"
    )
    clock, deadline = Scripted(itertools.repeat(5.0)), timing.Deadline(1000)
    timing.medians({"a": lambda: str}, clock, 7, deadline, "it")
    assert clock.count == 1 + 7 and not deadline.left


def test_the_command_measures_and_renders(generated: Path, tmp_path: Path) -> None:
    output, readme = tmp_path / "record.json", tmp_path / "README.md"
    chosen = ["scale_softmax", "--shape", "3x8", "--dtype", "float32", "--direction", "forward"]
    done = fusegen(
        "bench", *chosen, "--device", "cpu", "--no-compile", "--rounds", "1",
        "--out", str(generated), "--output", str(output),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "geometric means" in done.stdout
    assert len(json.loads(output.read_text())["cells"]) == 1
    readme.write_text("<!-- bench:cpu -->\n<!-- /bench:cpu -->\n")
    again = fusegen_here("bench", "--render", str(output), "--readme", str(readme))
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert "`scale_softmax`" in readme.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scale_softmaxx"], "did you mean specs/scale_softmax.yaml"),
        (["--dtype", "float3"], "--dtype"),
        (["--device", "cpu", "--no-tails"], "nothing to measure"),
        (["--render", "nowhere.json"], "nowhere.json is not there"),
        (
            ["scale_softmax", "--device", "cpu", "--out", "nowhere"],
            "run `fusegen build scale_softmax --out",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = fusegen_here("bench", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_without_a_record_one_shape_and_dtype_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("chain:\n  - swish\n")
    for device, dtype in cells.QUICK_DTYPE.items():
        shape = cells.SHAPES[device][0]
        found = cells.groups(device, [path], models=False, quick=True)
        assert [(g.name, g.dtype, (g.rows, g.cols)) for g in found] == [("my", dtype, shape)]
        given = cells.groups(device, [path], ["float64"], [(3, 8)], quick=True)
        assert [(g.dtype, (g.rows, g.cols)) for g in given] == [("float64", (3, 8))]


def test_an_image_has_a_shape_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_text("dims: 4\nchain:\n  - softmax: {dim: 1}\n")
    (group,) = cells.groups("cpu", [path], ["float32"])
    assert (group.rows, group.cols, group.trailing) == (8, 256, (56, 56))
    with pytest.raises(UserError, match=r"has 4 dims, such as 8x256x56x56"):
        cells.groups("cpu", [path], ["float32"], [(3, 8)])


def test_what_is_measured_where_there_are_no_reference_specs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--suite", "vocabulary")):
        done = fusegen_here("bench", *options, cwd=tmp_path)
        assert done.returncode == 2
        assert "name the spec files" in done.stderr or "benchmarks/specs" in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "mine.yaml").write_text("chain:\n  - swish\n")
    assert {g.name for g in cells.groups("cpu", [], models=False)} == {"mine"}


def test_the_device_is_what_is_there() -> None:
    assert command.device("cpu") == "cpu"
    assert command.device(None) == ("cuda" if torch.cuda.is_available() else "cpu")
