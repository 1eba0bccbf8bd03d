"""`fusegen export --single-file`: a chain as one Python file that needs torch and a compiler alone."""

from __future__ import annotations

from fusegen.tools.single_file.write import single_file

__all__ = ["single_file"]
