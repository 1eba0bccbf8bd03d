"""Runs pytest in forks of one process that has imported the libraries, which saves seconds of each run.

`python warm_pytest.py TREE COPIED` runs tests of TREE, a copy of COPIED. It reads a line of JSON for each
run: the arguments of pytest, a file for what it says, and after how many seconds it hangs. It answers with a
line: pytest's exit status, or "hangs".
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from typing import Any

#: More memory than any test needs: a change may ask for any amount.
MEMORY = 24 * 2**30


def main() -> None:
    """Answer until the input ends."""
    tree, copied = sys.argv[1:]
    os.chdir(tree)
    own = {"", copied, os.path.join(copied, "tests")}
    given = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in own]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([tree, *given]),
        "FUSEGEN_NATIVE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    sys.path[:] = [tree, *(p for p in sys.path[1:] if p not in own)]
    _import_libraries()
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _import_libraries() -> None:
    import clang_format  # noqa: F401
    import hypothesis  # noqa: F401
    import jinja2  # noqa: F401
    import mpmath  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import sympy  # noqa: F401
    import torch
    import torch._dynamo
    import xdist  # noqa: F401
    import yaml  # noqa: F401

    assert not any(name.split(".")[0] == "fusegen" for name in sys.modules)
    torch.set_num_threads(2)


def _run(asked: dict[str, Any]) -> int | str:
    """Run pytest in a fork, and return its exit status, or "hangs"."""
    child = os.fork()
    if not child:
        _child(asked)
    deadline = time.monotonic() + asked["seconds"]
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def _child(asked: dict[str, Any]) -> None:
    os.setsid()  # what it starts ends with it
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((null, log, log)):
        os.dup2(file, number)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pytest

    code = 70  # as of a crash
    try:
        code = int(pytest.main(asked["arguments"]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
