"""The cells to measure: chains, dtypes, shapes and directions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fusegen.base.dtypes import dtype_named
from fusegen.base.errors import UserError, nearest
from fusegen.chain.chains import alone
from fusegen.spec import load
from fusegen.spec.chains import chains_of
from fusegen.spec.model import Spec
from fusegen.toolchain.spec_files import expand
from fusegen.tools.bench.record import Direction, Kind, cell_key

#: The tails of the reference models, and a learnable scale before a softmax.
TAILS = (
    "matmul_add_swish_tanh_gelu_hardtanh",
    "matmul_swish_scale",
    "matmul_gelu_softmax",
    "scale_softmax",
    "matmul_dropout_softmax",
)
#: The reference models, each with its batch, in_features and out_features.
MODELS = {
    "matmul_add_swish_tanh_gelu_hardtanh": (1024, 8192, 8192),
    "matmul_swish_scale": (128, 32768, 32768),
    "matmul_gelu_softmax": (1024, 8192, 8192),
    "gemm_batchnorm_scale_softmax": (1024, 8192, 8192),
    "matmul_dropout_softmax": (128, 16384, 16384),
}
DTYPES = {"cuda": ("float32", "bfloat16", "float16"), "cpu": ("float32", "bfloat16")}
MODEL_DTYPES = ("bfloat16", "tf32")
SHAPES = {
    "cuda": (
        (8192, 8192),
        (4096, 16384),
        (32768, 1024),
        (2048, 65536),
        (1024, 8192),
        (128, 32768),
    ),
    "cpu": ((1024, 8192), (128, 32768), (16384, 512), (64, 64)),
}
#: What is measured without a record: one dtype, in the first shape of `SHAPES`.
QUICK_DTYPE = {"cuda": "bfloat16", "cpu": "float32"}
_T = TypeVar("_T")
_OfDevice = dict[str, tuple[tuple[int, ...], ...]]
_ROWS: _OfDevice = {"cuda": ((8192, 8192),), "cpu": ((1024, 8192),)}
_CLASSES: _OfDevice = {
    "cuda": ((8192, 32768), (4096, 131072)),
    "cpu": ((256, 32768), (64, 131072)),
}
_IMAGES: _OfDevice = {"cuda": ((64, 256, 56, 56),), "cpu": ((8, 256, 56, 56),)}
#: The dims after the channels of a chain whose x has so many dims; the others are those of `_IMAGES`.
_AFTER_CHANNELS = {3: (3136,), 4: (56, 56), 5: (16, 14, 14)}
#: The shapes of the suite "vocabulary", by the name of a spec in benchmarks/specs.
VOCABULARY = {
    "layer_norm": _ROWS,
    "rms_norm": _ROWS,
    "log_softmax": _ROWS,
    "cross_entropy": _CLASSES,
    "channel_softmax": _IMAGES,
    "group_norm": _IMAGES,
}
VOCABULARY_DTYPES = ("float32", "bfloat16")
#: The values of `--dtype` and `--direction`.
VALID_DTYPES = ("float64", "float32", "bfloat16", "float16", "tf32")
VALID_DIRECTIONS = ("forward", "backward")
SUITES = ("reference", "vocabulary")


@dataclass(frozen=True)
class Group:
    """The cells that are measured together: one chain in one dtype and shape.

    Args:
        kind: "tail" or "model".
        spec: the spec file.
        dtype: see `Cell`.
        rows: the rows of the activation.
        cols: its columns.
        in_features: a model's columns of x; None for tails.
        trailing: the sizes of the dims after the columns; see `Cell`.
        number: the chain's number in a spec of several; see `Spec`.
    """

    kind: Kind
    spec: Path
    dtype: str
    rows: int
    cols: int
    in_features: int | None = None
    trailing: tuple[int, ...] = ()
    number: int = 0

    @property
    def name(self) -> str:
        """The spec's name, with the chain's function if the spec has several."""
        return f"{self.spec.stem}.apply_{self.number}" if self.number else self.spec.stem

    @property
    def title(self) -> str:
        """The group in one line."""
        between = () if self.in_features is None else (self.in_features,)
        shape = "x".join(map(str, (self.rows, *between, self.cols, *self.trailing)))
        return f"{self.kind} {self.name} {self.dtype} {shape}"

    def directions(self, wanted: Sequence[str]) -> tuple[Direction, ...]:
        """Return the directions to time. A model's backward is never timed alone, since training runs
        both."""
        second: Direction = "backward" if self.kind == "tail" else "forward+backward"
        return (
            *(("forward",) if "forward" in wanted else ()),
            *((second,) if "backward" in wanted else ()),
        )

    def key(self, direction: str) -> tuple[object, ...]:
        """Return the key of one of the group's cells."""
        shape = (self.rows, self.cols, self.in_features, *self.trailing)
        return cell_key(self.kind, self.name, self.dtype, shape, direction)


def groups(
    device: str,
    specs: Sequence[Path],
    dtypes: Sequence[str] = (),
    shapes: Sequence[tuple[int, ...]] = (),
    *,
    tails: bool = True,
    models: bool = True,
    quick: bool = False,
) -> list[Group]:
    """Return the groups of a run; what is not given has the device's defaults.

    Args:
        device: "cuda" or "cpu".
        specs: spec files; with none, the reference specs in specs/, or all that are there if these are not.
        dtypes: of tails and models; for models also "tf32".
        shapes: rows and columns of tails, and further dims; models have their own.
        tails: whether to measure chains without their matmul.
        models: whether to measure whole models: those with a size in `MODELS`.
        quick: one dtype and one shape of tails, unless others are given.

    Raises:
        UserError: if no specs are given and there are none in specs/, or a shape does not fit a spec.
    """
    folder = Path("specs")
    if not specs and not all((folder / f"{name}.yaml").is_file() for name in (*TAILS, *MODELS)):
        specs = expand([])
    if quick:
        dtypes = dtypes or [QUICK_DTYPE[device]]
    found = []
    if tails:
        paths = specs or [folder / f"{name}.yaml" for name in TAILS]
        chosen = [d for d in dtypes or DTYPES[device] if d != "tf32"]
        for path in paths:
            for one, given in _fitting(path, device, shapes):
                fitting = _shapes(one, device, given, 1 if quick else None)
                pairs = itertools.product(chosen, fitting)
                found += [_tail(path, dtype, shape, one.number) for dtype, shape in pairs]
    if models:
        paths = specs or [folder / f"{name}.yaml" for name in MODELS]
        for path, dtype in itertools.product(paths, dtypes or MODEL_DTYPES):
            if path.stem in MODELS:
                rows, wide, cols = MODELS[path.stem]
                found.append(Group("model", path, dtype, rows, cols, wide))
    return found


def vocabulary(device: str, dtypes: Sequence[str] = (), names: Sequence[str] = ()) -> list[Group]:
    """Return the groups of the suite "vocabulary": single ops, each at its own shapes.

    Args:
        device: "cuda" or "cpu".
        dtypes: by default float32 and bfloat16.
        names: of the specs; with none, all.

    Raises:
        UserError: if a name is not one of them, or their folder is not there.
    """
    chosen = one_of("--suite vocabulary:", names, list(VOCABULARY)) or list(VOCABULARY)
    folder = Path("benchmarks/specs")
    if not folder.is_dir():
        raise UserError(
            f"--suite vocabulary measures the specs of {folder}, which fusegen's repository has: run it there"
        )
    return [
        _tail(folder / f"{name}.yaml", dtype, shape)
        for name in chosen
        for shape in VOCABULARY[name][device]
        for dtype in dtypes or VOCABULARY_DTYPES
    ]


def _fitting(
    path: Path, device: str, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[Spec, list[tuple[int, ...]]]]:
    """Return the chains of a spec that have kernels, each with those of some shapes that it can have.

    Raises:
        UserError: if a shape fits none of them.
    """
    chains = [one for one in chains_of(load(path)) if not alone(one)]
    found = [(one, [s for s in shapes if one.dims in (0, len(s))]) for one in chains]
    for shape in shapes:
        if not any(shape in fitting for _, fitting in found):
            one = chains[0]
            text, usual = ("x".join(map(str, s)) for s in (shape, _shapes(one, device, (), 1)[0]))
            raise UserError(
                f"--shape {text}: the activation of {one.title} has {one.dims} dims, such as {usual}"
            )
    return [(one, fitting) for one, fitting in found if fitting or not shapes]


def _shapes(
    spec: Spec, device: str, given: Sequence[tuple[int, ...]], count: int | None
) -> Sequence[tuple[int, ...]]:
    """Return the shapes of a chain's activation: those that are given, or at most `count` of the device's."""
    dims = spec.dims
    if given:
        return given
    if dims <= 2:
        return SHAPES[device][:count]
    ((rows, channels, *_),) = _IMAGES[device]
    after = _AFTER_CHANNELS.get(dims, (8,) * (dims - 2))
    return ((rows, channels, *after),)


def _tail(path: Path, dtype: str, shape: tuple[int, ...], number: int = 0) -> Group:
    rows, cols, *trailing = shape
    return Group("tail", path, dtype, rows, cols, trailing=tuple(trailing), number=number)


def shard(found: Sequence[_T], text: str) -> list[_T]:
    """Return every n-th group from the i-th on, for "i/n" with i from 1 to n.

    Raises:
        UserError: where the text says something else.
    """
    first, _, count = text.partition("/")
    if not (_is_number(first) and _is_number(count) and 1 <= int(first) <= int(count)):
        raise UserError(f"--shard {text}: expected i/n with i from 1 to n, such as 1/16")
    return list(found[int(first) - 1 :: int(count)])


def parse_shape(text: str) -> tuple[int, ...]:
    """Return rows and columns of "8192x8192", or all dims of "64x256x56x56".

    Raises:
        UserError: where the text says something else.
    """
    sizes = text.split("x")
    if len(sizes) < 2 or not all(_is_number(size) and int(size) for size in sizes):
        raise UserError(f"--shape {text}: expected sizes, such as 8192x8192 or 64x256x56x56")
    return tuple(int(size) for size in sizes)


def one_of(option: str, words: Sequence[str], valid: Sequence[str]) -> list[str]:
    """Return the words, each of which must be valid for an option; a dtype may have another name, as fp32.

    Raises:
        UserError: if one is not.
    """
    found = [dtype_named(word) for word in words]
    for word in found:
        if word not in valid:
            raise UserError(f"{option} {word}: not known{nearest(word, valid)}")
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
