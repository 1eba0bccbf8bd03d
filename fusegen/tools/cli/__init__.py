"""The command line. It imports what a command needs when that command runs."""

from __future__ import annotations

from fusegen.tools.cli.app import main

__all__ = ["main"]
