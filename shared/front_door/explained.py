"""Errors that a user can fix, reported in one line instead of a traceback through MONAI."""

from __future__ import annotations

import dis
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ..writers.storage import StorageError, storage_error

# Set to anything, it brings the tracebacks back.
TRACEBACK_VARIABLE = "FULL_TRACEBACK"
_HOME = re.compile(r"^(--\w+=|)(~)(?=/|$)")
_OWN = ("shared", "scripts", "__main__")
_MONAI_COMMAND_LINE = "monai.bundle.__main__"
# What SQLite says of a disk, in MLflow's own errors too.
_DATABASE = {
    "database or disk is full": "the disk is full. Free some space, or write to another disk",
    "attempt to write a readonly database": "it is read-only. Write to another folder",
    "unable to open database file": "it cannot be opened or created. Write to another folder",
}


def is_command_line() -> bool:
    """Whether this process is ``python -m monai.bundle``, which has no error handling."""
    return getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None) == _MONAI_COMMAND_LINE


def begin_script() -> None:
    """The first steps of every script: `explain_errors`, and a ``~`` that the shell has left in its arguments is expanded."""
    explain_errors()
    # Not by the shell in --out=~/maps, nor between quotation marks.
    sys.argv[1:] = [_HOME.sub(lambda found: found[1] + str(Path(found[2]).expanduser()), word) for word in sys.argv[1:]]


def explain_errors() -> None:
    """From here on, an error that ends the process and that the user can fix is printed as ``error: ...`` and nothing else.

    The exit status stays 1. All other errors, and all where the environment variable FULL_TRACEBACK is set, keep their
    traceback.
    """
    sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    said = None if os.environ.get(TRACEBACK_VARIABLE) else explanation(error)
    if said is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {said}", file=sys.stderr)


def explanation(error: BaseException) -> str | None:
    """The message of an error for the user; None if it is not one that a user can fix.

    That is what `shared` itself raises as ValueError or RuntimeError, and what the system says of a file or a disk. A
    ValueError that another library raises may be a fault of this project, and its traceback is what says where.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, StorageError):
            return str(cause)
    for cause in _chain(error, with_contexts=True):
        for words, said in _DATABASE.items() if isinstance(cause, sqlite3.Error) else ():
            if words in str(cause):
                return f"MLflow's database: {said}"
    for cause in chain:
        if isinstance(cause, ValueError | RuntimeError | ImportError) and _is_raised_here(cause):
            return str(cause)
    for cause in reversed(chain):
        if isinstance(cause, OSError) and cause.errno is not None:
            return _of_system(cause)
    return None


def _of_system(error: OSError) -> str:
    path = error.filename if isinstance(error.filename, str) else None
    found = storage_error(error, path or ".", path or "a file")
    return str(found) if found is not None else f"{error.strerror}: {path}" if path else str(error)


def _chain(error: BaseException, with_contexts: bool = False) -> Iterator[BaseException]:
    """An error and what caused it, in this order. MONAI wraps what a configuration's item raises, once a level."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (cause.__context__ if with_contexts else None)


def _is_raised_here(error: BaseException) -> bool:
    """Whether a ``raise`` statement of this project made the error, rather than a call of a library written in C."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0]
    return module in _OWN and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
