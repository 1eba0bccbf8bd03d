"""The command line and scripts, in a process of their own or in the tests' own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from fusegen.tools import cli
from fusegen.tools.cli import options


def fusegen(
    *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "fusegen", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": search, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def python_in(folder: Path, *command: str, **environment: str) -> str:
    """Run Python in a folder, which it imports from too; return what it prints. It must not fail."""
    search = os.pathsep.join([str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fusegen_here(
    *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has imported torch already: it takes two seconds."""
    command = ["fusegen", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", command)
        patch.chdir(cwd)
        for variable, value in environment.items():
            patch.setenv(variable, value)
        for console in (options.OUT, options.ERR):  # these have read COLUMNS, if it was set
            patch.setattr(console, "width", 200)
        try:
            cli.main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else bool(error.code)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
