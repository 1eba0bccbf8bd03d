"""`fusegen import`: the text of the command line -> a model and its inputs -> spec files."""

from __future__ import annotations

from fusegen.tools.importing.inputs_text import inputs_of
from fusegen.tools.importing.model_text import model_of
from fusegen.tools.importing.write import write_specs

__all__ = ["inputs_of", "model_of", "write_specs"]
