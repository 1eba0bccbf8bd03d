"""The command line."""

from __future__ import annotations

import contextlib
import enum
import errno
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer

from fusegen.base.errors import UserError
from fusegen.base.version import __version__
from fusegen.toolchain import builder
from fusegen.toolchain.compile_errors import CompileError
from fusegen.toolchain.compilers import for_every_machine
from fusegen.tools.cli.caching import cache
from fusegen.tools.cli.checking import check
from fusegen.tools.cli.declarations import import_declarations
from fusegen.tools.cli.display import BuildDisplay, Reports, results_table
from fusegen.tools.cli.exporting import export
from fusegen.tools.cli.importing import import_
from fusegen.tools.cli.measuring import bench, tune
from fusegen.tools.cli.options import ERR, OUT, Out, Specs, show_table
from fusegen.tools.cli.packaging import kernels_hub, package
from fusegen.tools.cli.reporting import report
from fusegen.tools.cli.showing import show
from fusegen.tools.cli.starting import new, schema
from fusegen.tools.cli.vocabulary import ops

#: Errors that a user can fix: a full disk, a folder without permission to read or write.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Fused CUDA and C++ kernels, with exact derivatives, from chains of operations in YAML.",
)


class BackendChoice(enum.StrEnum):
    """What to build for."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def _version(wanted: bool) -> None:
    if wanted:
        OUT.print(f"fusegen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    declare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.py",
            envvar="FUSEGEN_DECLARE",
            help="A file that declares ops or atoms of your own; before the command.",
        ),
    ] = None,
) -> None:
    del version  # the callback has shown it
    for path in declare or []:
        import_declarations(path)


def build(
    specs: Specs = None,
    out: Out = Path("generated"),
    backend: Annotated[
        BackendChoice, typer.Option(help="auto: the CPU, and CUDA if there are nvcc and a GPU.")
    ] = BackendChoice.auto,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU architectures, such as 90 or 80,90.", show_default="the present GPU's"
        ),
    ] = None,
    dtypes: Annotated[
        str | None,
        typer.Option(
            help="Compile for these alone, such as bfloat16,float32.",
            show_default="those of the spec",
        ),
    ] = None,
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="For the CPU, compile for every instruction set, not for this machine's alone; "
            "it takes three times as long. A wheel needs it.",
        ),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Processes at once; MAX_JOBS is honoured.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the commands.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only compare the sources with what their specs would generate."
        ),
    ] = False,
) -> None:
    """Generate packages from specs and compile them, for this machine unless --portable says otherwise."""
    paths = specs or []
    if check:
        differences = builder.check(paths, out=out, jobs=jobs, progress=Reports(ERR))
        for difference in differences:
            OUT.print(difference, markup=False, soft_wrap=True)
        if differences:
            ERR.print(
                f"{len(differences)} files differ from what their specs render to; run `fusegen build`"
            )
            raise typer.Exit(1)
        return
    started = time.perf_counter()
    machine = for_every_machine() if portable else contextlib.nullcontext()
    with BuildDisplay(ERR, verbose) as display, machine:
        results = builder.build(
            paths,
            out=out,
            backend=backend.value,
            arch=arch or (),
            dtypes=dtypes.split(",") if dtypes else (),
            jobs=jobs,
            verbose=verbose,
            progress=display,
        )
    show_table(results_table(results, out, time.perf_counter() - started))


def clean(out: Out = Path("generated")) -> None:
    """Remove compiled files; the generated sources stay."""
    for path in builder.clean(out):
        OUT.print(f"removed {path}", markup=False, soft_wrap=True)


app.command()(new)
app.command()(build)
app.command()(show)
app.command()(report)
app.command()(check)
app.command()(bench)
app.command()(tune)
app.command("import")(import_)
app.command()(export)
app.command()(package)
app.command("kernels-hub")(kernels_hub)
app.command()(ops)
app.command()(schema)
app.command()(clean)
app.command()(cache)


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    # torch works without numpy, and says so above whatever a command prints.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    try:
        app(prog_name="fusegen")
    except CompileError as error:
        ERR.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    except UserError as error:
        ERR.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        ERR.print(f"error: {place}{error.strerror}", markup=False, soft_wrap=True)
        sys.exit(2)
