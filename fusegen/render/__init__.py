"""Render: turns a `Chain` into the files of a package, through the templates in templates/.

The result maps file names to text: kernels, the binding, and the Python module. `fusegen.toolchain` compiles
them.
"""

from __future__ import annotations

from fusegen.render.files import formatted, render

__all__ = ["formatted", "render"]
