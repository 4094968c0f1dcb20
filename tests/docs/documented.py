"""The commands that the READMEs show, read from their fenced blocks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READMES = sorted(
    path
    for pattern in ("*.md", "bundles/*.md", "bundles/*/docs/*.md", "scripts/*.md", "shared/*.md", "docs/**/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
SHELLS = ("bash", "sh", "console", "shell")
PROGRAMS = ("python", "bash", "torchrun", "pip", "mlflow", "ray")


@dataclass(frozen=True)
class Command:
    """One command, and its place.

    Args:
        readme: path from the repository's root.
        line: its first one, from 1.
        words: as the shell splits them, without comments.
        folder: where an earlier ``cd`` of its block has led, from the repository's root.
    """

    readme: str
    line: int
    words: tuple[str, ...]
    folder: str = "."

    def __str__(self) -> str:
        return f"{self.readme}:{self.line}"

    @property
    def is_bundle_run(self) -> bool:
        """Whether it is ``python -m monai.bundle run``, alone or under torchrun."""
        return "monai.bundle run" in " ".join(self.words)


def blocks(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """(language, number of the first line from 1, lines) of every fenced block."""
    language, start, lines = None, 0, []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif language is None:
            language, start, lines = line.strip()[3:].strip(), number + 1, []
        else:
            yield language, start, lines
            language = None


def commands_of(readme: Path) -> Iterator[Command]:
    """Every command in the fenced blocks of a README, in order; those that ``&&`` joins one by one."""
    for language, start, lines in blocks(readme.read_text(encoding="utf-8")):
        if language not in SHELLS:
            continue
        joined, first, folder = "", start, "."
        for number, line in enumerate(lines, start=start):
            if language == "console" and not joined and not line.lstrip().startswith("$ "):
                continue
            first = first if joined else number
            joined += line if joined else line.lstrip().removeprefix("$ ")
            if joined.endswith("\\"):
                joined = joined[:-1] + " "
                continue
            words, joined = shlex.split(joined, comments=True), ""
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                command, words = words[:end], words[end + 1 :]
                if command[0] == "cd":
                    folder = command[1]
                else:
                    yield Command(str(readme.relative_to(ROOT)), first, tuple(command), folder)


def unmarked_commands(readme: Path) -> list[int]:
    """Lines that look like commands in blocks that no shell's name stands above."""
    return [
        number
        for language, start, lines in blocks(readme.read_text(encoding="utf-8"))
        if language not in SHELLS
        for number, line in enumerate(lines, start=start)
        if line.strip().removeprefix("$ ").split(" ")[0] in PROGRAMS
    ]


COMMANDS = [command for readme in READMES for command in commands_of(readme)]
