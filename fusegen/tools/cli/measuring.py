"""The commands that measure: `fusegen bench` and `fusegen tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusegen.base.errors import UserError
from fusegen.toolchain.spec_files import find_spec
from fusegen.tools.cli.display import BuildDisplay
from fusegen.tools.cli.options import ERR, OUT, Device, Inputs, complete_specs
from fusegen.tools.cli.whole_models import bench_model, is_model

if TYPE_CHECKING:
    from fusegen.tools.bench.sweep.measure import Sweep

__all__ = ["bench", "tune"]

#: When a measurement without a record begins nothing more.
_SECONDS = 60.0


def tune(
    specs: Annotated[
        list[str],
        typer.Argument(help="Spec files, or their names.", autocompletion=complete_specs),
    ],
    shape: Annotated[str, typer.Option(help="Such as 8192x8192.")] = "8192x8192",
    dtype: Annotated[str, typer.Option(help="Such as bfloat16.")] = "bfloat16",
    device: Annotated[Device, typer.Option(help="cuda, or cpu to try the command.")] = Device.cuda,
) -> None:
    """Measure launch parameters on this GPU, and save the best beside each spec for `build`."""
    import torch

    from fusegen.base.dtypes import DTYPES
    from fusegen.tools.bench.cells import one_of, parse_shape
    from fusegen.tools.tune import Case
    from fusegen.tools.tune import tune as tune_spec

    (named,) = one_of("--dtype", [dtype], DTYPES)
    rows, cols, *more = parse_shape(shape)
    if more:
        raise UserError(f"--shape {shape}: tune takes rows and columns, such as 8192x8192")
    paths = [find_spec(name) for name in specs]
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("fusegen tune needs a GPU, and there is none here")
    for path in paths:
        ERR.print(f"{path}", markup=False)
        tune_spec(path, Case(rows, cols, getattr(torch, named), device.value), ERR.print)


def bench(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Spec files, or their names; or one model: model.py:Class.",
            show_default="the reference specs",
            autocompletion=complete_specs,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the packages.",
            show_default="generated, and random_bench with --random",
        ),
    ] = None,
    inputs: Inputs = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything", help="Of a model: fuse also what the estimate says is slower."
        ),
    ] = False,
    device: Annotated[
        Device | None, typer.Option(help="Where to run.", show_default="cuda where there is a GPU")
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="A dtype; for models also tf32.", show_default="one; all with --output"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="A tail's shape, such as 8192x8192.", show_default="one; all with --output"
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="reference, or vocabulary: ops alone, from benchmarks/specs.")
    ] = "reference",
    direction: Annotated[
        list[str] | None,
        typer.Option(
            help="forward or backward; for models, backward includes the forward.",
            show_default="both",
        ),
    ] = None,
    compile_: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too.")
    ] = True,
    max_autotune: Annotated[
        bool | None,
        typer.Option(
            "--max-autotune/--no-max-autotune",
            help="Also with max-autotune.",
            show_default="with --output",
        ),
    ] = None,
    tails: Annotated[
        bool, typer.Option("--tails/--no-tails", help="Chains without their matmul.")
    ] = True,
    models: Annotated[
        bool | None,
        typer.Option(
            "--models/--no-models", help="Whole models.", show_default="on a GPU with --output"
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, help="How often each variant is timed.", show_default="21, short calls 41"
        ),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            min=0,
            help="Draw specs and shapes from a seed, build them, check and time.",
        ),
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option(min=1, help="With --random: how many cells to draw.", show_default="60"),
    ] = None,
    megabytes: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="With --random: the size of x.",
            show_default="64:512, on a CPU 4:32",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Begin nothing more after so many seconds.",
            show_default="60; no end with --output or --random",
        ),
    ] = None,
    build_only: Annotated[
        bool, typer.Option("--build-only", help="With --random: build the packages, time nothing.")
    ] = False,
    shard: Annotated[str, typer.Option(help="i/n: every n-th group from the i-th on.")] = "1/1",
    warm: Annotated[
        bool, typer.Option("--warm", help="Only compile, into torch's cache on disk.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The record, a JSON file, of every shape and dtype.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the record's cells, measure the others.")
    ] = False,
    render: Annotated[
        Path | None, typer.Option(help="A record to show instead of measuring.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="A picture to draw, .svg or .png.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="A file whose table between markers is rewritten.")
    ] = None,
) -> None:
    """Time built packages against eager torch, torch.compile and a copy.

    Without --output each chain is measured in one shape and dtype. Of a model, time a forward pass, a forward
    and a backward pass, and a training step. Both end after about a minute, and say what they left out.
    """
    if is_model(specs or [], inputs):
        for option, given in (
            ("--random", random is not None),
            ("--suite", suite != "reference"),
            ("--shape", shape),
            ("--direction", direction),
            ("--shard", shard != "1/1"),
            ("--warm", warm),
            ("--output", output),
            ("--resume", resume),
            ("--render", render),
            ("--chart", chart),
            ("--readme", readme),
        ):
            if given:
                raise UserError(
                    f"{option} is for specs: of a model, bench takes --inputs, --device, --dtype, --rounds, "
                    "--seconds, --everything and --no-compile"
                )
        bench_model(
            (specs or [])[0],
            inputs,
            device and device.value,
            dtype or [],
            compiled=compile_,
            everything=everything,
            rounds=rounds,
            seconds=_SECONDS if seconds is None else seconds,
        )
        return
    if everything:
        raise UserError("--everything is for a model: model.py:Class")
    from fusegen.tools.bench import cells as suites
    from fusegen.tools.bench import command, record
    from fusegen.tools.bench.sweep import command as sweeps
    from fusegen.tools.bench.sweep import record as sweep_record

    if render is not None and sweep_record.is_random(render):
        sweeps.show(sweep_record.read(render), OUT)
        return
    if render is not None:
        command.show(record.read(render), OUT, chart, readme)
        return
    where = command.device(device and device.value)
    directions = suites.one_of("--direction", direction or [], suites.VALID_DIRECTIONS)
    if random is not None:
        if specs or shape or chart or readme or suite != "reference":
            raise UserError(
                "--random draws the specs and shapes, and has no chart: leave out the names, --shape, "
                "--suite, --chart and --readme"
            )
        sweep = sweeps.wanted(
            random,
            where,
            out=out,
            cells=cells,
            megabytes=megabytes,
            seconds=seconds,
            dtypes=dtype or [],
            directions=directions,
            compile_=compile_,
            rounds=rounds,
            output=output,
            resume=resume,
        )
        _random(sweep, shard if warm else None, build_only=build_only)
        return
    if build_only or any(o is not None for o in (cells, megabytes)):
        raise UserError("--cells, --megabytes and --build-only need --random SEED")
    dtypes = suites.one_of("--dtype", dtype or [], suites.VALID_DTYPES)
    full = output is not None or warm
    if suites.one_of("--suite", [suite], suites.SUITES) == ["vocabulary"]:
        groups = suites.vocabulary(where, dtypes, specs or [])
    else:
        groups = suites.groups(
            where,
            [find_spec(spec) for spec in specs or []],
            dtypes,
            [suites.parse_shape(text) for text in shape or []],
            tails=tails,
            models=full and where == "cuda" if models is None else models,
            quick=not full,
        )
    wanted = command.wanted(
        suites.shard(groups, shard),
        where,
        out or Path("generated"),
        directions,
        modes=compile_ + (compile_ and (full if max_autotune is None else max_autotune)),
        rounds=rounds,
        output=output,
        resume=resume,
        seconds=_SECONDS if seconds is None and output is None else seconds,
    )
    measured = command.perform(wanted, ERR, warm=warm)
    if measured is not None:
        command.show(measured, OUT, chart, readme)
        if wanted.deadline.left:
            OUT.print(f"{wanted.deadline}", markup=False, soft_wrap=True)


def _random(sweep: Sweep, part: str | None, *, build_only: bool) -> None:
    """Build, check and time random cells; with a part, only compile for torch.compile."""
    from fusegen.tools.bench.sweep import command

    if part is not None:
        command.warm(sweep, part, ERR)
        return
    with BuildDisplay(ERR, verbose=False) as display:
        refused = command.build_only(sweep, display)
    for name, message in refused.items():
        ERR.print(f"{name} is not built: {message}", markup=False)
    if build_only:
        raise typer.Exit(1 if refused else 0)
    record = command.run(sweep, refused, ERR)
    command.show(record, OUT)
    if any(cell.state != "timed" for cell in record.cells):
        raise typer.Exit(1)
