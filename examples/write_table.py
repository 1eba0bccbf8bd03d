"""Writes the table of README.md: what is fused of each example. Nothing is built.

python examples/write_table.py
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

from training import Example

from fusegen.models import Report
from fusegen.models.imported import import_model
from fusegen.models.plan import ALONE, APART

README = Path(__file__).with_name("README.md")
FILES = (
    *("llama", "language", "vision_transformers", "convolutional", "unet", "sequences", "physics"),
)
HEADER = """\
| example | run | ops fused | not fused with the ops beside them | ops with none beside them |
| --- | --- | ---: | --- | --- |
"""


def examples() -> Iterator[tuple[str, str, Example]]:
    """Yield each example with its file and its name."""
    for file in FILES:
        for name, example in importlib.import_module(file).EXAMPLES.items():
            yield file, name, example


def row(file: str, name: str, report: Report) -> str:
    """Return what a report says as a row of the table."""
    share = f"{report.fused_ops} of {report.fusible_ops}"
    command = f"python examples/{file}.py {name}"
    return f"| {name} | `{command}` | {share} | {left(report, APART)} | {left(report, ALONE)} |\n"


def left(report: Report, reason: str) -> str:
    """Return the ops that are left for a reason."""
    found = {name: count for (name, why), count in report.left.items() if why == reason}
    return ", ".join(f"{count} {name}" for name, count in found.items())


def report_of(example: Example, name: str) -> Report:
    """Return what is fused of an example."""
    model, inputs = example.start()
    given = inspect.signature(model.forward).bind(*inputs)
    return import_model(model, given, title=name, order=example.order)[1]


def main() -> None:
    """Write the table anew."""
    rows = "".join(row(file, name, report_of(example, name)) for file, name, example in examples())
    before, _, rest = README.read_text().partition("<!-- table -->\n")
    after = rest.partition("<!-- /table -->\n")[2]
    README.write_text(f"{before}<!-- table -->\n{HEADER}{rows}<!-- /table -->\n{after}")


if __name__ == "__main__":
    main()
