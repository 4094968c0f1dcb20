"""The patient or slide of an image, from its name."""

from __future__ import annotations

import re

from ..wsi.file_names import comparable


class CasePattern:
    """A regular expression whose first group is the case. Names and cases are compared in one form, see `comparable`.

    Args:
        pattern: found anywhere in a name.

    Raises:
        ValueError: if it is not a valid regular expression, or has no group.

    >>> CasePattern(r"patient(\\d+)").case_of("test/patient12 b.png")
    '12'
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(comparable(pattern))
        except re.error as error:
            raise ValueError(f"the case_pattern {pattern!r} is not a valid regular expression: {error}") from error
        if not self._pattern.groups:
            raise ValueError(f"the case_pattern {pattern!r} has no group (...) that names the case")

    def case_of(self, name: str) -> str:
        """The case of a name.

        Raises:
            ValueError: if the name holds none.
        """
        match = self._pattern.search(comparable(name))
        if not match or not match[1]:
            raise ValueError(f"{name} does not match the case_pattern {self._pattern.pattern!r}")
        return match[1]
