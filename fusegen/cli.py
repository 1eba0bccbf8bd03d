"""The command line."""

from __future__ import annotations

import enum
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusegen import builder
from fusegen.compile_errors import CompileError
from fusegen.display import BuildDisplay, results_table
from fusegen.errors import UserError, nearest
from fusegen.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fused CUDA and C++ kernels, with exact derivatives, from chains of operations in YAML.",
)
_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

Specs = Annotated[
    list[Path] | None, typer.Argument(help="Spec files, or folders of them.", show_default="specs/")
]
Out = Annotated[Path, typer.Option("--out", help="The folder of the generated packages.")]


class Device(enum.StrEnum):
    """Where to run."""

    cpu = "cpu"
    cuda = "cuda"


class BackendChoice(enum.StrEnum):
    """What to build for."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def _version(wanted: bool) -> None:
    if wanted:
        _out.print(f"fusegen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version  # the callback has shown it


@app.command()
def build(
    specs: Specs = None,
    out: Out = Path("generated"),
    backend: Annotated[
        BackendChoice, typer.Option(help="auto: the CPU, and CUDA where nvcc and a GPU are.")
    ] = BackendChoice.auto,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU architectures, such as 90 or 80,90.", show_default="the present GPU's"
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Compilers at once; MAX_JOBS is honoured.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the commands.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only compare what would be rendered with what is there."),
    ] = False,
) -> None:
    """Render specs into packages and compile them."""
    paths = specs or [Path("specs")]
    if check:
        differences = builder.check(paths, out=out)
        for difference in differences:
            _out.print(difference, markup=False, soft_wrap=True)
        if differences:
            _err.print(
                f"{len(differences)} files differ from what their specs render to; run `fusegen build`"
            )
            raise typer.Exit(1)
        return
    started = time.perf_counter()
    with BuildDisplay(_err, verbose) as display:
        results = builder.build(
            paths,
            out=out,
            backend=backend.value,
            arch=arch or (),
            jobs=jobs,
            verbose=verbose,
            progress=display,
        )
    _out.print(results_table(results, time.perf_counter() - started))


@app.command()
def tune(
    specs: Annotated[list[str], typer.Argument(help="Spec files, or names of specs in specs/.")],
    shape: Annotated[str, typer.Option(help="Such as 8192x8192.")] = "8192x8192",
    dtype: Annotated[str, typer.Option(help="Such as bfloat16.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the command.")] = "cuda",
) -> None:
    """Measure launch parameters on this GPU; `build` reads what is kept beside each spec."""
    import torch

    from fusegen.tune import Case
    from fusegen.tune import tune as tune_spec

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("fusegen tune measures on a GPU, and there is none here")
    rows, cols = (int(n) for n in shape.split("x"))
    for name in specs:
        path = _spec(name)
        _err.print(f"{path}", markup=False)
        tune_spec(path, Case(rows, cols, getattr(torch, dtype), device), _err.print)


@app.command()
def ops(
    docs: Annotated[
        Path | None, typer.Option(help="Write the manual of the ops into this folder instead.")
    ] = None,
) -> None:
    """List the ops that a chain can name."""
    from fusegen.ops import registry

    if docs is not None:
        from fusegen.manual.pages import write

        files, changed = write(docs)
        _out.print(f"{docs}: {files} files, {changed} changed", markup=False)
        return

    table = Table(title=f"{len(registry())} ops", title_justify="left")
    for column in ("op", "operands", "attributes", "formula", "torch"):
        table.add_column(column, overflow="fold")
    for name, op in registry().items():
        attributes = ", ".join(f"{k}={v}" for k, v in op.attributes.items())
        known_as = "".join(f", {alias}" for alias in op.aliases)
        table.add_row(
            name + known_as,
            ", ".join(op.operands),
            attributes,
            Text(op.statement),  # its [brackets] are no markup
            f"torch.{op.torch}",
        )
    _out.print(table)


@app.command()
def bench(
    specs: Annotated[
        list[str] | None,
        typer.Argument(help="Spec files, or names in specs/.", show_default="the reference specs"),
    ] = None,
    out: Out = Path("generated"),
    device: Annotated[
        Device | None, typer.Option(help="Where to run.", show_default="cuda where there is a GPU")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="A dtype; of models also tf32.", show_default="all")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="A tail's rows and columns, such as 8192x8192.", show_default="all"),
    ] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(help="forward or backward; of models, both at once.", show_default="both"),
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too.")
    ] = True,
    max_autotune: Annotated[
        bool, typer.Option("--max-autotune/--no-max-autotune", help="Also in its slowest mode.")
    ] = True,
    tails: Annotated[
        bool, typer.Option("--tails/--no-tails", help="Chains without their matmul.")
    ] = True,
    models: Annotated[
        bool | None,
        typer.Option("--models/--no-models", help="Whole models.", show_default="on a GPU"),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="How often each is timed.", show_default="21, short calls 41"),
    ] = None,
    shard: Annotated[str, typer.Option(help="i/n: every n-th group from the i-th on.")] = "1/1",
    warm: Annotated[
        bool, typer.Option("--warm", help="Only compile, into torch's cache on disk.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="The record, a JSON file.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the record's cells, measure the others.")
    ] = False,
    render: Annotated[
        Path | None, typer.Option(help="A record to show, in place of measuring.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="A picture to draw, .svg or .png.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="A file whose table between markers is written anew.")
    ] = None,
) -> None:
    """Time built packages beside eager torch, torch.compile and a copy."""
    from fusegen.bench import cells, command, record

    if render is not None:
        command.show(record.read(render), _out, chart, readme)
        return
    where = command.device(device and device.value)
    groups = cells.groups(
        where,
        [_spec(spec) for spec in specs or []],
        cells.one_of("--dtype", dtype or [], cells.VALID_DTYPES),
        [cells.parse_shape(text) for text in shape or []],
        tails=tails,
        models=where == "cuda" if models is None else models,
    )
    wanted = command.wanted(
        cells.shard(groups, shard),
        where,
        out,
        cells.one_of("--direction", direction or [], cells.VALID_DIRECTIONS),
        modes=compile_ + (compile_ and max_autotune),
        rounds=rounds,
        output=output,
        resume=resume,
    )
    measured = command.perform(wanted, _err, warm=warm)
    if measured is not None:
        command.show(measured, _out, chart, readme)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A spec file, or the name of a spec in specs/.")],
    out: Out = Path("generated"),
) -> None:
    """Show a chain's programs, its derivatives, and the files they became."""
    from fusegen.pipeline import derive

    derived = derive(_spec(name))
    _out.print(derived.describe(), markup=False, soft_wrap=True)
    folder = out / derived.spec.name
    if folder.is_dir():
        table = Table(title=str(folder), title_justify="left")
        table.add_column("file")
        table.add_column("lines", justify="right")
        for path in sorted(p for p in folder.iterdir() if p.suffix in (".h", ".cpp", ".cu", ".py")):
            table.add_row(path.name, str(len(path.read_text().splitlines())))
        _out.print(table)
    else:
        _out.print(f"{folder} is not there yet: run `fusegen build`")


@app.command()
def check(specs: Specs = None, out: Out = Path("generated")) -> None:
    """Gradcheck built packages in float64 and compare them with eager torch in every dtype."""
    from fusegen import verify

    try:
        verdicts = verify.check(builder.expand(specs or [Path("specs")]), out)
    except ImportError as error:  # not built, or not loadable; the message says which
        raise UserError(str(error)) from error
    table = Table()
    for column in ("package", "device", "what", "worst", "bound", ""):
        table.add_column(column, overflow="fold")
    for v in verdicts:
        verdict = "ok" if v.passed else "FAILED"
        table.add_row(v.package, v.device, v.what, Text(v.worst), v.bound, verdict)
    _out.print(table)
    failed = [v for v in verdicts if not v.passed]
    if failed:
        _err.print(f"{len(failed)} of {len(verdicts)} checks failed")
        raise typer.Exit(1)


@app.command()
def clean(out: Out = Path("generated")) -> None:
    """Remove what was compiled; the generated sources stay."""
    for path in builder.clean(out):
        _out.print(f"removed {path}", markup=False, soft_wrap=True)


def _spec(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    known = {p.stem: p for p in Path("specs").glob("*.y*ml")}
    if name not in known:
        raise UserError(
            f"no spec file and no spec in specs/ is called {name!r}{nearest(name, known)}"
        )
    return known[name]


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    try:
        app()
    except CompileError as error:
        _err.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    except UserError as error:
        _err.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(2)
