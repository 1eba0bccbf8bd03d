"""The commands for a first spec: `fusegen new` and `fusegen schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fusegen.base.errors import UserError
from fusegen.tools.cli.options import OUT

__all__ = ["new", "schema"]

_STEPS = "linear,gelu,softmax"


def new(
    name: Annotated[str, typer.Argument(help="The package's name; NAME.yaml is written here.")],
    steps: Annotated[
        str | None,
        typer.Option(
            help=f"The steps, in order, such as {_STEPS}; a formula may be one.",
            show_default=f"asked for, or {_STEPS}",
        ),
    ] = None,
) -> None:
    """Start a spec: NAME.yaml, and beside it the schema by which an editor completes and checks it."""
    from fusegen.base.files import write_if_different
    from fusegen.spec.json_schema import json_schema
    from fusegen.tools.new_spec import SCHEMA_FILE, new_spec

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if path.exists():
        raise UserError(f"{path} is there already; `fusegen show {path}` prints what it says")
    if steps is None and sys.stdin.isatty():
        steps = typer.prompt("Steps, in order, with commas between them", default=_STEPS)
    words = [word.strip() for word in (steps or _STEPS).split(",") if word.strip()]
    write_if_different(path, new_spec(path.stem, words))
    write_if_different(path.with_name(SCHEMA_FILE), _text(json_schema()))
    OUT.print(f"{path}: edit it, then `fusegen build {path}`", markup=False, soft_wrap=True)


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", help="A file to write.", show_default="standard output")
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for editors: put `# yaml-language-server: $schema=FILE` into a spec."""
    from fusegen.base.files import write_if_different
    from fusegen.spec.json_schema import json_schema

    text = _text(json_schema())
    if out is None:
        print(text, end="")
        return
    write_if_different(out, text)
    OUT.print(
        f"{out}: name it in a spec: # yaml-language-server: $schema={out}",
        markup=False,
        soft_wrap=True,
    )


def _text(value: dict[str, object]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
