"""`python -m fusegen`: the command line, where the console script is not on PATH."""

from __future__ import annotations

from fusegen.tools.cli import main

main()
