"""Processor, GPUs, memory, disk and rights."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .finding import Finding, Level
from .software import ROOT

GIB = 2**30
LEAST_DISK_GIB, LEAST_SHARED_GIB, LEAST_MEMORY_GIB, LEAST_OPEN_FILES = 5, 1, 4, 1024


def processor() -> Iterator[Finding]:
    sys.path.insert(0, str(ROOT))
    from shared.front_door.cores import available_cores

    cores, of_machine = available_cores(), os.cpu_count() or 1
    here = f"{cores} cores" if cores == of_machine else f"{cores} of {of_machine} cores"
    from shared.networks.precision import cpu_computes_bfloat16

    precision = "uses bfloat16" if cpu_computes_bfloat16() else "uses float32 (bfloat16 is not faster here)"
    yield Finding("CPU", Level.OK, f"{here}, {precision}")
    waiting = os.getloadavg()[0]
    if waiting > of_machine:
        remedy = "put OMP_NUM_THREADS=1 in front of each command: threads that wait for each other lose most of their time"
        yield Finding("other work", Level.NOTE, f"{waiting:.0f} processes compete for {of_machine} cores", remedy)


def gpus() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16"
            yield Finding(f"GPU {index}", Level.OK, f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, {bfloat16}")
        return
    found = f"none that PyTorch {torch.__version__} can use"
    if shutil.which("nvidia-smi") is None:
        yield Finding("GPU", Level.NOTE, f"{found}, and no NVIDIA driver", "everything runs on the CPU, which is slower")
    elif torch.version.cuda is None:
        yield Finding("GPU", Level.PROBLEM, f"{found}: this is its CPU build", "install torch for CUDA (docs/install.md)")
    else:
        remedy = "update the driver, or use requirements-cuda12.txt (docs/install.md)"
        yield Finding("GPU", Level.PROBLEM, f"{found}, which was built for CUDA {torch.version.cuda}", remedy)


def memory() -> Iterator[Finding]:
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        gib = min(gib, int(text) / GIB)
    level = Level.OK if gib >= LEAST_MEMORY_GIB else Level.PROBLEM
    yield Finding(
        "memory", level, f"{gib:.1f} GiB", "" if level is Level.OK else f"{LEAST_MEMORY_GIB} GiB are needed for training"
    )
    shared = Path("/dev/shm")
    if shared.is_dir():
        gib = shutil.disk_usage(shared).total / GIB
        few = gib < LEAST_SHARED_GIB
        remedy = "start the container with --shm-size 4g, or train with --num_workers 0" if few else ""
        yield Finding("shared memory", Level.PROBLEM if few else Level.OK, f"{gib:.1f} GiB in {shared}", remedy)


def disk() -> Iterator[Finding]:
    for name, folder in (("disk", Path.cwd()), ("temporary folder", Path(tempfile.gettempdir()))):
        gib = shutil.disk_usage(folder).free / GIB
        few = gib < LEAST_DISK_GIB
        remedy = "free some space" + (", or export TMPDIR=/another/folder" if name != "disk" else "") if few else ""
        yield Finding(name, Level.PROBLEM if few else Level.OK, f"{gib:.1f} GiB free in {folder}", remedy)


def rights() -> Iterator[Finding]:
    folders = {"current folder": Path.cwd(), "home folder": Path(os.environ.get("HOME", "/nonexistent"))}
    for name, folder in folders.items():
        if os.access(folder, os.W_OK):
            yield Finding(name, Level.OK, f"{folder} can be written to")
        else:
            remedy = "export HOME=/a/writable/folder (MLflow needs one)" if name == "home folder" else "change to another folder"
            yield Finding(name, Level.PROBLEM, f"{folder} cannot be written to", remedy)
    import pwd

    try:
        yield Finding("user", Level.OK, os.environ.get("LOGNAME") or pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        yield Finding("user", Level.PROBLEM, f"user {os.getuid()} has no name", "export LOGNAME=me (MONAI needs one)")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= files < LEAST_OPEN_FILES
    remedy = f"ulimit -n {LEAST_OPEN_FILES}" if few else ""
    yield Finding(
        "open files", Level.NOTE if few else Level.OK, f"at most {files} at a time" if files >= 0 else "no limit", remedy
    )
