"""A process that builds packages for `build_process.py`: `python -m … OUT SPEC…`.

It prints why some could not be built.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fusegen.toolchain.build_each import build_each

#: How much this process and its compilers yield to others, the one that trains a model among them.
_NICE = 10


def main() -> None:
    """Build the packages."""
    os.nice(_NICE)
    out, *specs = map(Path, sys.argv[1:])
    print(json.dumps(build_each(specs, out)))


if __name__ == "__main__":
    main()
