"""Several GPUs of this machine: a process for each of them, which share the images of one output folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, TextIO

ALL = "all"
VISIBLE = "CUDA_VISIBLE_DEVICES"
TERMINATED = 128 + signal.SIGTERM
WHOLE_LINES = threading.Lock()


def chosen_gpus(given: str) -> list[str]:
    """The names in ``CUDA_VISIBLE_DEVICES`` of the GPUs that ``--gpus`` selects, by their numbers among those that are visible.

    Raises:
        ValueError: if there is no GPU, not this one, or it is named twice.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ValueError(
            f"--gpus {given} needs CUDA GPUs, and PyTorch {torch.__version__} finds none (see nvidia-smi). Leave it out to "
            "compute on the CPU"
        )
    named = range(count) if given == ALL else [_number(word.strip(), given) for word in given.split(",")]
    wrong = [number for number in named if number >= count]
    if wrong:
        raise ValueError(f"--gpus {given}: there is no GPU {wrong[0]}; PyTorch finds {count}, numbered from 0")
    if len(set(named)) < len(named):
        raise ValueError(f"--gpus {given}: name each GPU only once")
    visible = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return [visible[number] if visible else str(number) for number in named]


def run_on_gpus(command: Sequence[str], gpus: Sequence[str]) -> int:
    """Run a command once for each GPU, which is the only one that it sees, and wait for all.

    What a process says begins with its GPU. One that fails keeps no other from its work.

    Args:
        command: as for `subprocess.run`.
        gpus: of `chosen_gpus`.

    Returns:
        0 when all ended well, else the status of the first that did not; 1 for one that was killed.
    """
    processes: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []
    may_exit = is_told = False

    def end(*_: object) -> None:
        nonlocal is_told
        is_told = True
        if may_exit:
            sys.exit(TERMINATED)

    # A signal that comes while they start, or end, must not leave any of them behind.
    before = signal.signal(signal.SIGTERM, end)
    try:
        for gpu in gpus:
            processes.append(_start(command, gpu))
            readers += _forward(processes[-1], gpu)
        may_exit = True
        if is_told:
            sys.exit(TERMINATED)
        statuses = [process.wait() for process in processes]
    finally:
        may_exit = False
        # After Ctrl-C, which they have got too, they are ending by themselves.
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
        for reader in readers:
            reader.join()
        signal.signal(signal.SIGTERM, before)
    failed = [(gpu, status) for gpu, status in zip(gpus, statuses, strict=True) if status]
    for gpu, status in failed:
        print(f"error: the process of GPU {gpu} ended with status {status}", file=sys.stderr)
    return next((status if status > 0 else 1 for _, status in failed), 0)


def _number(word: str, given: str) -> int:
    if not word.isdigit():
        raise ValueError(f"--gpus expects 'all' or numbers such as 0,1; got {given!r}")
    return int(word)


def _start(command: Sequence[str], gpu: str) -> subprocess.Popen[str]:
    environment = os.environ | {VISIBLE: gpu, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")


def _forward(process: subprocess.Popen[str], gpu: str) -> list[threading.Thread]:
    """Threads that print the output of a process here, line by line."""

    def relay(source: IO[str], target: TextIO) -> None:
        for line in source:
            # print writes a line and its end separately, and another process's line could come between the two.
            with WHOLE_LINES:
                print(f"GPU {gpu}: {line.rstrip()}", file=target, flush=True)

    streams = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    readers = [threading.Thread(target=relay, args=pair, daemon=True) for pair in streams if pair[0] is not None]
    for reader in readers:
        reader.start()
    return readers
