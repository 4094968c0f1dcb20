"""The option of every command that is told the classes of labels and masks."""

from __future__ import annotations

from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from shared.wsi.annotations.reading import plain_name


class _DifferentNames(Action):
    """Takes two names at least, all different, as those of annotation files are told apart: case and blanks do not count."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: str | Sequence[Any] | None, option_string: str | None = None
    ) -> None:
        names = [str(name) for name in values or ()]
        plain = [plain_name(name) for name in names]
        if len(names) < 2:
            found = f"expected two names at least, the background first, such as normal tumour; found {names[0]!r} alone"
            raise ArgumentError(self, found)
        if "" in plain or len(set(plain)) < len(plain):
            found = ", ".join(map(repr, names))
            raise ArgumentError(self, f"expected different names, of which none is empty (case does not count); found {found}")
        setattr(namespace, self.dest, names)


def add_class_names_option(parser: ArgumentParser, default: Sequence[str] | None = None) -> None:
    """Add ``--class_names``, which must be given where there is no default."""
    parser.add_argument(
        "--class_names",
        nargs="+",
        action=_DifferentNames,
        default=list(default) if default is not None else None,
        required=default is None,
        help="class names of labels and masks, background first",
    )
