"""The commands that the READMEs show, read from their fenced blocks."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
READMES = sorted(
    path
    for pattern in ("README.md", "bundles/README.md", "bundles/*/docs/README.md", "scripts/README.md")
    for path in ROOT.glob(pattern)
)
SHELLS = ("bash", "sh", "console", "shell")
PROGRAMS = ("python", "bash", "torchrun", "pip", "mlflow", "ray")


@dataclass(frozen=True)
class Command:
    """One command, and where it stands.

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

    def values_of(self, option: str) -> list[str]:
        """The words behind ``--option`` up to the next option; none where it is not given."""
        if option not in self.words:
            return []
        rest = self.words[self.words.index(option) + 1 :]
        ends = [index for index, word in enumerate(rest) if word.startswith("--")]
        return list(rest[: ends[0]] if ends else rest)

    @property
    def is_bundle_run(self) -> bool:
        """Whether it is ``python -m monai.bundle run`` and nothing else, alone or under torchrun."""
        return "monai.bundle run" in " ".join(self.words) and "&&" not in self.words

    @property
    def config_files(self) -> list[str]:
        """Of ``--config_file``, in either notation: a list in one word, or several words."""
        return [
            file
            for word in self.values_of("--config_file")
            for file in (ast.literal_eval(word) if word.startswith("[") else [word])
        ]

    @property
    def config_paths(self) -> list[str]:
        """The same files in the repository: a bundle's own folder is where a downloaded one's would be."""
        return [str(ROOT / ("." if self.folder == "." else f"bundles/{self.folder}") / file) for file in self.config_files]

    @property
    def config(self) -> dict[str, Any]:
        """The merged configuration, as MONAI reads it."""
        return ConfigParser.load_config_files(self.config_paths)

    @property
    def keys(self) -> list[str]:
        """Keys of the configuration that the command sets."""
        behind = self.words[self.words.index("monai.bundle") :] if self.is_bundle_run else ()
        return [word[2:] for word in behind if word.startswith("--") and word != "--config_file"]


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


def commands_of(readme: Path) -> list[Command]:
    """Every command in the fenced blocks of a README, in order."""
    found = []
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
            if words[:1] == ["cd"]:
                folder, words = words[1], words[3:]
            if words:
                found.append(Command(str(readme.relative_to(ROOT)), first, tuple(words), folder))
    return found


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
