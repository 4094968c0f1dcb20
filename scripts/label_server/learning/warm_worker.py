"""The process of a `WarmProcess`: imports what trainings need, waits for a training, and runs it.

python -m scripts.label_server.learning.warm_worker CONFIGURATION...

It then reads one line from its standard input: {"config_file": [...], "meta_file": FILE, "log": FILE}
"""

from __future__ import annotations

import atexit
import json
import os
import pydoc
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def targets(value: Any) -> Iterator[str]:
    """The names of all components in a configuration."""
    if isinstance(value, dict):
        name = value.get("_target_")
        if isinstance(name, str) and not name.startswith(("$", "@", "%")):
            yield name
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from targets(part)


def import_components(files: list[str]) -> None:
    """Import all components of the configurations; errors are left to the training to report."""
    import monai.bundle  # noqa: F401
    import torch

    # Creating the first optimizer of a process imports several hundred more modules.
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for file in files:
        with suppress(OSError, ValueError):
            for name in sorted({*targets(json.loads(Path(file).read_text()))}):
                with suppress(Exception):
                    pydoc.locate(name)


def _end_with_the_server() -> None:
    # Only the server has the other end of the pipe, which closes when the server ends, for whatever reason.
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
    status = run(request["config_file"], request["meta_file"])
    # Saves the second that Python takes to unload its modules.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run(config_file: list[str], meta_file: str) -> int:
    """Do what ``python -m monai.bundle run`` does, without its slow search of all modules; return the exit status."""
    import monai.bundle

    try:
        monai.bundle.run(config_file=config_file, meta_file=meta_file)
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
        return ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
