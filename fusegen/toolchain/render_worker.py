"""A process that derives one package after the other for `render_pool.py`, which says of which specs.

It takes a path and answers with messages: `str` is a line to show, anything else the end of that path's work.
It ends when its parent does: the connection is closed then.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from fusegen.base.activity import reported
from fusegen.base.errors import UserError
from fusegen.toolchain.pipeline import render_package
from fusegen.toolchain.rendered import RenderedPackage


def serve(connection: Connection) -> None:
    """Derive the packages of the spec files that come over a connection, until it is closed."""
    try:
        while True:
            connection.send(_rendered(connection.recv(), connection))
    except (EOFError, OSError):  # the parent has closed it, or is gone
        return


def _rendered(path: Path, connection: Connection) -> RenderedPackage | Exception:
    try:
        with reported(path.stem, connection.send):
            return render_package(path)
    except Exception as error:  # also a bug: the parent raises it
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """Return an error as it arrives in another process, with this one's traceback where it is a bug."""
    told = traceback.format_exc()
    if not isinstance(error, UserError):
        error.add_note(f"In the process that derived it:\n{told}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its constructor takes something else than its arguments
        return UserError(str(error)) if isinstance(error, UserError) else RuntimeError(told)
    return error


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
