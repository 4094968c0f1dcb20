"""The process of `WarmProcess`: imports what trainings need, waits for one, and becomes it.

python -m scripts.label_server.warm_worker CONFIGURATION...      then a line of JSON: {"arguments": [...], "log": FILE}
"""

from __future__ import annotations

import json
import os
import pydoc
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULE = "monai.bundle"


def targets(value: Any) -> Iterator[str]:
    """The names of the components in a configuration."""
    if isinstance(value, dict):
        name = value.get("_target_")
        if isinstance(name, str) and not name.startswith(("$", "@", "%")):
            yield name
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from targets(part)


def import_components(files: list[str]) -> None:
    """Import all that the configurations name; what cannot be imported is the training's to say."""
    import monai.bundle  # noqa: F401

    for file in files:
        with suppress(OSError, ValueError):
            for name in sorted({*targets(json.loads(Path(file).read_text()))}):
                with suppress(Exception):
                    pydoc.locate(name)


def _end_with_the_server() -> None:
    # The other end of the pipe is the server's alone: it closes when the server ends, however it does.
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    import_components(sys.argv[1:])
    line = sys.stdin.readline()
    if not line:
        return
    request = json.loads(line)
    threading.Thread(target=_end_with_the_server, name="end with the server", daemon=True).start()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.argv = [MODULE, *request["arguments"]]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
