"""Programs in mathematical notation: equations as presentation MathML for browsers, and as LaTeX."""

from fusegen.tools.typeset.equations import Equation, aligned, equations, legend

__all__ = ["Equation", "aligned", "equations", "legend"]
