"""The command line. It imports what a command needs when that command runs."""

from __future__ import annotations

from fusegen.cli.app import main

__all__ = ["main"]
