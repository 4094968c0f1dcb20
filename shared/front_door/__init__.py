"""Where a run begins: what its user gave is checked before anything is computed or written, and errors are told in one line."""

from .check import check_configuration, check_given
from .explained import begin_script, explain_errors, explanation
from .given import Given, executing_parser
from .names import nearest
from .surroundings import device_problems

__all__ = [
    "Given",
    "begin_script",
    "check_configuration",
    "check_given",
    "device_problems",
    "executing_parser",
    "explain_errors",
    "explanation",
    "nearest",
]
