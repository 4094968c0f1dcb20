"""Checks this machine and this installation, and reports, one line each, what works, what is missing and what to do about it.

python scripts/doctor.py

It checks Python, packages and their versions, GPUs and why PyTorch cannot use them, precision, cuCIM, compiler, memory, shared
memory, disk, write access and optional packages. It changes nothing, and needs no installed packages.

Exit status: 0 when everything required is available, 1 when there is a problem.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.diagnosis import machine, software
from scripts.diagnosis.finding import Level, findings_of

CHECKS = (
    software.python,
    software.required_packages,
    machine.gpus,
    machine.processor,
    software.slide_readers,
    software.compiler,
    machine.memory,
    machine.disk,
    machine.rights,
    software.optional_packages,
)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    problems = 0
    for check in CHECKS:
        for finding in findings_of(check):
            print(finding, flush=True)
            problems += finding.level is Level.PROBLEM
    print(f"{problems} problem{'' if problems == 1 else 's'}." if problems else "No problems.")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
