"""Render: a `Chain` becomes the files of a package, through the templates in templates/.

In: a `Chain`. Out: the text of each file by its name: kernels, the binding, the Python module.
`fusegen.toolchain` compiles them.
"""

from __future__ import annotations

from fusegen.render.files import formatted, render

__all__ = ["formatted", "render"]
