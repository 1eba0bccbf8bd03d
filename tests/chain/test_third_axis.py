"""Operands that list their dims: gradients summed in the kernels, against torch's own broadcast."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, derive, once, shared
from random_programs.build import build_specs
from shared.vocabulary import build_for_devices
from torch import Tensor

from fusegen import load
from fusegen.base.errors import SpecError
from fusegen.program import Kind
from fusegen.toolchain import pipeline
from fusegen.tools.check.compare import Comparison
from fusegen.tools.check.rounding import EXACT, StoredRounding
from fusegen.tools.check.verify import make_case

SPECS = {
    # The norm of a block that is modulated sample by sample; positions are summed by torch.
    "modulated": """
        dims: 3
        operands: {place: {dims: [1, 2]}, scale: {dims: [0, 2]}, shift: {dims: [0, -1]}}
        chain:
          - expr: "layer_norm(x + place, eps=1e-6)"
          - expr: "x * (1 + scale) + shift"
        """,
    # Attention with a bias of each head, and a temperature of each sample that torch sums over the heads.
    "scores": """
        dims: 4
        operands: {bias: {dims: [1, 2, 3]}, sharp: {dims: [0]}}
        chain:
          - expr: "softmax(x * sharp + bias)"
        """,
    # [N, 1, H, 1] becomes larger along two dims that are no neighbours, and is then combined with rows of
    # which it is neither one a row nor one a column.
    "between": """
        dims: 4
        operands: {whole: full, head: {dims: [1]}, place: {dims: [2, 3]}}
        chain:
          - mul: head
          - mean: {dim: 1, keepdim: true}
          - mean: {dim: 3, keepdim: true, name: m}
          - mul: whole
          - softmax: {dim: 2}
          - expr: "x * place + m * head"
        """,
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "third_axis"
    texts = {name: textwrap.dedent(text) for name, text in SPECS.items()}
    once(tmp_path_factory, "third_axis", lambda: build_for_devices(folder, texts, ("float64",)))
    return folder / "generated"


def wanted(name: str, x: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    if name == "scores":
        return torch.softmax(x * given["sharp"] + given["bias"], -1)
    if name == "between":
        m = (x * given["head"]).mean((1, 3), keepdim=True)
        return torch.softmax(m * given["whole"], 2) * given["place"] + m * given["head"]
    x = torch.nn.functional.layer_norm(x + given["place"], x.shape[-1:], eps=1e-6)
    return x * (1 + given["scale"]) + given["shift"]


def operands_for(name: str, shape: tuple[int, ...], device: str) -> dict[str, Tensor]:
    along = {
        "modulated": {"place": (1, 2), "scale": (0, 2), "shift": (0, 2)},
        "scores": {"bias": (1, 2, 3), "sharp": (0,)},
        "between": {"whole": (0, 1, 2, 3), "head": (1,), "place": (2, 3)},
    }[name]
    return {
        n: torch.randn(
            [size if d in dims else 1 for d, size in enumerate(shape)],
            dtype=torch.float64,
            device=device,
            requires_grad=True,
        )
        for n, dims in along.items()
    }


def shapes(name: str) -> Iterator[tuple[int, ...]]:
    yield from {
        "modulated": [(3, 5, 7), (1, 4, 8), (4, 1, 33), (2, 300, 64), (65, 3, 1030)],
        "scores": [(2, 3, 5, 7), (3, 1, 33, 65), (2, 2, 1, 1500), (150, 2, 2, 16)],
        "between": [(2, 3, 5, 7), (3, 1, 33, 5)],
    }[name]
    rng = random.Random(6)
    rank = 3 if name == "modulated" else 4
    for _ in range(3):
        front = [rng.choice((1, 2, 3, 8, 17, 64)) for _ in range(rank - 1)]
        yield (*front, rng.choice((3, 8, 33, 96)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SPECS)
def test_values_and_gradients(name: str, device: str, packages: Path) -> None:
    package: ModuleType = load(name, packages)
    for shape in shapes(name):
        given = operands_for(name, shape, device)
        x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
        sliced = torch.randn((*shape[:-1], shape[-1] + 3), dtype=torch.float64, device=device)
        turned = torch.randn((shape[1], shape[0], *shape[2:]), dtype=torch.float64, device=device)
        for own in (x, sliced[..., 2:-1].requires_grad_(), turned.transpose(0, 1).requires_grad_()):
            inputs = [own, *given.values()]
            results = package.apply(own, **given), wanted(name, own, given)
            if own is x and name != "between":
                assert results[0].stride() == results[1].stride()
            cotangent = torch.randn_like(results[1])
            first = [torch.autograd.grad(r, inputs, cotangent, create_graph=True) for r in results]
            seconds = []
            for found in first:
                moving = [g for g in found if g.requires_grad]
                total = sum((g * g.detach().cos()).sum() for g in moving)
                seconds.append(torch.autograd.grad(total, inputs, materialize_grads=True))
            for got, true in zip(
                (results[0], *first[0], *seconds[0]),
                (results[1], *first[1], *seconds[1]),
                strict=True,
            ):
                torch.testing.assert_close(
                    got, true, rtol=1e-8, atol=1e-8, msg=f"{shape} {{}}".format
                )


def test_parameters_list_their_dims(tmp_path: Path) -> None:
    """Embeddings of positions, and a number for each of them that is [T, 1] in the state_dict."""
    (tmp_path / "embedded.yaml").write_text(
        "arguments: {positions: int, width: int}\ndims: 3\norder: 1\noperands:\n"
        "  place: {dims: [1, 2], init: randn, shape: [positions, width]}\n"
        "  scale: {dims: [1], init: ones, shape: [positions, 1]}\n"
        "chain:\n  - add: place\n  - layer_norm: {eps: 1.0e-5}\n  - mul: scale\n"
    )
    build_specs([tmp_path / "embedded.yaml"], tmp_path / "generated", dtypes=("float64",))
    model = load("embedded", tmp_path / "generated").Module(5, 8, dtype=torch.float64)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {"place": (5, 8), "scale": (5, 1)}
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    wanted = torch.nn.functional.layer_norm(x + model.place, (8,), eps=1e-5) * model.scale
    inputs, cotangent = (x, *model.parameters()), torch.randn_like(wanted)
    torch.testing.assert_close(model(x), wanted)
    torch.testing.assert_close(
        torch.autograd.grad(model(x), inputs, cotangent),
        torch.autograd.grad(wanted, inputs, cotangent),
    )


def test_transforms_and_compilers(packages: Path) -> None:
    """An operand may vary along the dim that a batch would join, so that a batch loops."""
    package = load("modulated", packages)
    given = operands_for("modulated", (3, 5, 7), "cpu")
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    batched = torch.func.vmap(lambda one: package.apply(one, **given))(x)
    torch.testing.assert_close(batched, wanted("modulated", x, given))

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        given["scale"].grad = None
        return torch.autograd.grad(
            package.apply(x * 2, **given).square().sum(), tuple(given.values())
        )

    compiled = torch.compile(lambda x: package.apply(x * 2, **given), backend="aot_eager")
    torch.testing.assert_close(compiled(x[0]), wanted("modulated", x[0] * 2, given))
    found = torch.autograd.grad(compiled(x[0]).square().sum(), tuple(given.values()))
    torch.testing.assert_close(found, gradients(x[0]))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("modulated", {"place": Kind.FULL, "scale": Kind.CHANNEL, "shift": Kind.CHANNEL}),
        ("scores", {"bias": Kind.CHANNEL, "sharp": Kind.ROW}),
    ],
)
def test_what_is_summed_in_the_kernels(name: str, kinds: dict[str, Kind], tmp_path: Path) -> None:
    (tmp_path / f"{name}.yaml").write_text(textwrap.dedent(SPECS[name]))
    backward = derive(tmp_path / f"{name}.yaml").segments[0].modes[0].programs[1]
    likes = {n: (backward.outputs | backward.shared)[f"grad_{n}"].like for n in kinds}
    assert {n: like.access.kind for n, like in likes.items()} == kinds


def test_random_dims_against_the_reference(tmp_path: Path) -> None:
    """The programs of random chains, in float64, are torch's functions: value and gradients."""
    rng = random.Random(6)
    for number in range(12):
        rank = rng.choice((3, 3, 4, 5))
        listed = [rng.sample(range(rank), rng.randint(1, rank)) for _ in range(rng.randint(1, 3))]
        norm = rng.choice(
            ("", "softmax", "layer_norm: {dim: -1}", "rms_norm: {dim: -2, eps: 1e-6}")
        )
        operands = ", ".join(f"o{n}: {{dims: {dims}}}" for n, dims in enumerate(listed))
        formula = "x"
        for n in range(len(listed)):
            formula = f"({formula}) {rng.choice('+*')} {rng.choice((f'o{n}', f'sin(o{n})'))}"
        steps = [f'expr: "{formula}"', *([norm] if norm else [])]
        rng.shuffle(steps)
        chain = "\n".join(f"  - {step}" for step in steps)
        path = tmp_path / f"random{number}.yaml"
        path.write_text(f"dims: {rank}\norder: 1\noperands: {{{operands}}}\nchain:\n{chain}\n")
        derived = pipeline.derive(path)
        shape = (*(rng.choice((1, 2, 3, 5)) for _ in range(rank - 1)), 4)
        comparison = Comparison(derived, make_case(derived, shape, training=False), torch.float32)
        found, truth = comparison.programs(EXACT), comparison.truth()
        for name, got, true in zip(comparison.names, found, truth, strict=True):
            message = f"{name} of {path.read_text()}, {shape}: {{}}"
            torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9, msg=message.format)


@pytest.mark.parametrize(
    ("steps", "dims"),
    [
        (["amax: {dim: 1, keepdim: true}"], [0]),
        (["softmax: {dim: 0}", "amax: {dim: 0, keepdim: true}"], [2]),
        (["mean: {dim: [1, 2], keepdim: true}", "tanh"], [0]),
        (["softmax: {dim: 2}"], [0]),
    ],
)
def test_some_dims_of_the_rows_are_no_more_than_rows(
    steps: list[str], dims: list[int], tmp_path: Path
) -> None:
    """They make no reduced value larger, and their gradient has at most a number for each row."""
    path = tmp_path / "rows.yaml"
    lines = "".join(f"  - {step}\n" for step in (*steps, 'expr: "x * a + sin(b)"'))
    operands = f"a: {{dims: {dims}}}, b: {{dims: {dims}}}, c: {{dims: [0, 2]}}"
    path.write_text(f"dims: 4\norder: 1\noperands: {{{operands}}}\nchain:\n  - add: c\n{lines}")
    derived = pipeline.derive(path)
    (a,) = (o for o in derived.segments[-1].operands if o.name == "a")
    assert a.kind in Kind.ROW
    case = make_case(derived, (3, 2, 5, 4), training=False)
    comparison = Comparison(derived, case, torch.float32)
    for got, true in zip(comparison.programs(EXACT), comparison.truth(), strict=True):
        torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("dims", "columns", "kinds"),
    [
        # A gate of each channel of a sample, as squeeze-and-excitation has it, and of each place.
        ([[0, 1]], (-2, -1), ["row"]),
        ([[0, 2, 3]], (-3,), ["row"]),
        ([[0, 1], [1]], (-2, -1), ["row", "channel"]),
        ([[0, 2, 3], [1]], (-3,), ["row", "col"]),
        # A number for each channel, or for each head and position.
        ([[1]], (-2, -1), ["channel"]),
        ([[0, 1, 2]], (-1,), ["row"]),
        # Others are a third axis of rows of one dim.
        ([[0, 3]], (-1,), ["channel"]),
        (
            [[0, 3], [0], [2]],
            (-1,),
            ["channel", "channel", "full"],
        ),  # of [0, 3], or of all elements
        ([[2, 3], [1, 2, 3]], (-1,), ["channel", "full"]),
    ],
)
def test_rows_of_a_chain_that_reduces_nothing(
    dims: list[list[int]], columns: tuple[int, ...], kinds: list[str], tmp_path: Path
) -> None:
    """Kernels read them in channels-last too, but for a third axis."""
    operands = ", ".join(f"o{n}: {{dims: {own}}}" for n, own in enumerate(dims))
    formula = " + ".join(["tanh(x)", *(f"o{n} * x" for n in range(len(dims)))])
    path = tmp_path / "gate.yaml"
    path.write_text(f"dims: 4\norder: 1\noperands: {{{operands}}}\nchain:\n  - expr: {formula}\n")
    (segment,) = derive(path).segments
    assert segment.layout.columns == columns
    assert [operand.kind.label for operand in segment.operands] == kinds
    if columns != (-1,):
        assert segment.modes[0].memory_formats == ("strided", "strided")


def test_the_check_knows_which_gradients_torch_sums(tmp_path: Path) -> None:
    """In 16 bits each of their terms is rounded, as in eager; a kernel rounds its own sums alone."""
    path = tmp_path / "sums.yaml"
    path.write_text(
        "dims: 4\norder: 1\noperands: {a: {dims: [0, 2]}, b: {dims: [1, 3]}, c: {dims: [0, 3]}}\n"
        "chain:\n  - layer_norm: {eps: 1.0e-5}\n  - expr: x * a + b * c\n"
    )
    derived = pipeline.derive(path)
    case = make_case(derived, (3, 4, 5, 6), training=False)
    comparison = Comparison(derived, case, torch.bfloat16)
    names = comparison.names
    exact = dict(zip(names, comparison.programs(EXACT), strict=True))
    rounded = dict(zip(names, comparison.programs(StoredRounding(torch.bfloat16)), strict=True))
    unequal = {name for name in names if not torch.equal(exact[name], rounded[name])}
    (segment,) = derived.segments
    expanded = {o.name for o in segment.operands if o.kind is Kind.FULL}
    assert unequal == {f"grad_{name}" for name in expanded} == {"grad_a", "grad_c"}


def test_they_may_be_of_float32_beside_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    declared = "a: {dims: [0, 2], dtype: float32}, b: {dims: [0], dtype: float32}"
    text = f"dims: 3\noperands: {{{declared}}}\nchain:\n  - %s\n  - expr: x * a + b\n"
    path.write_text(text % "layer_norm")
    forward = derive(path).segments[0].modes[0].programs[0]
    stored = {i.name: i.access.stored for i in forward.inputs}
    assert stored == {"x": "x", "a": "computed", "b": "computed"}
    path = tmp_path / "expanded.yaml"
    path.write_text(text.replace("[0, 2]", "[0, 1]") % "softmax: {dim: 1}")
    with pytest.raises(SpecError, match="'a' is expanded to all elements for expr, and these have"):
        derive(path)


GROUPED = """
    dims: 4
    order: 1
    arguments: {{features: int}}
    operands: {{a: {{dims: {dims}}}}}
    chain:
      - group_norm: {{num_groups: 2, features: features}}
      - expr: "x * a"
    """


@pytest.mark.parametrize("dims", [[1, 2, 3], [2, 3], [1], [0], [0, 2, 3]])
def test_dims_are_none_of_rows_or_columns_where_rows_are_groups(
    dims: list[int], tmp_path: Path
) -> None:
    """[C, H, W] is that of all groups, of which a row is one."""
    path = tmp_path / "grouped.yaml"
    path.write_text(textwrap.dedent(GROUPED).format(dims=dims))
    derived = pipeline.derive(path)
    (a,) = (o for o in derived.segments[0].operands if o.name == "a")
    assert a.kind == Kind.FULL
    comparison = Comparison(
        derived, make_case(derived, (3, 4, 2, 3), training=False), torch.float32
    )
    for got, true in zip(comparison.programs(EXACT), comparison.truth(), strict=True):
        torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("dims", "declared", "message"),
    [
        (0, "{dims: [0, 1]}", "'a' lists dims, so say how many dims x has: `dims: 3` or more"),
        (3, "{dims: [0, 3]}", r"the dims of 'a' must be some of 0 to 2, not \[0, 3\]"),
        (3, "{dims: []}", r"the dims of 'a' must be some of 0 to 2, not \[\]"),
        (3, "{dims: [0], kind: full}", "'a' has both a kind and dims: drop one of them"),
        (3, "{gradient: false}", "the kind of 'a' is missing"),
    ],
)
def test_mistakes(dims: int, declared: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mistaken.yaml"
    head = f"dims: {dims}\n" if dims else ""
    path.write_text(f"{head}operands: {{a: {declared}}}\nchain: [{{add: a}}]\n")
    with pytest.raises(SpecError, match=message):
        pipeline.derive(path)
