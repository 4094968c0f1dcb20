"""The arguments of a run: configuration files in their order, and keys with their values."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.utils import ensure_tuple

# Of a bundle: the independent configurations.
BASE_NAMES = ("train", "evaluate", "inference")
# Functions of MONAI's command line, and which of their variables holds the values that were given for keys.
_OVERRIDES = {create_workflow.__code__: "kwargs", run.__code__: "override"}
# Options of MONAI's command line, which are no keys of a configuration.
_OPTIONS = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow.__init__).parameters, "workflow_name"}


@dataclass(frozen=True)
class Given:
    """Configuration files and what follows them on the command line.

    Attributes:
        files: in their order: later ones overlay earlier ones. Empty where they are not known.
        values: keys of the command line, ``::`` between the names of nested ones, as they were given.
        configs: the folder of the bundle's configurations; None for that of the first file.
        dropped: keys whose None MONAI's command line leaves out.
    """

    files: tuple[Path, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    configs: Path | None = None
    dropped: tuple[str, ...] = ()

    @cached_property
    def contents(self) -> list[dict[str, Any]]:
        """Contents of each file."""
        return [dict(ConfigParser.load_config_file(file)) for file in self.files]

    @cached_property
    def bases(self) -> list[int]:
        """Places of the independent files; the first one where none of them does."""
        found = [index for index, content in enumerate(self.contents) if stands_alone(content)]
        return found or list(range(len(self.files)))[:1]

    @cached_property
    def merged(self) -> dict[str, Any]:
        """The files' entries, later ones over earlier ones, without `values`."""
        try:
            return dict(ConfigParser.load_config_files([str(file) for file in self.files])) if self.files else {}
        except (KeyError, ValueError) as error:
            raise ValueError(f"{self.files[-1]} does not fit {self.base}, which has no such item ({error})") from error

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The file next to the base named ``metadata.json``; empty where nothing does."""
        files = [self.files[index].parent / "metadata.json" for index in self.bases]
        return dict(ConfigParser.load_config_file(files[-1])) if files and files[-1].is_file() else {}

    @cached_property
    def siblings(self) -> dict[str, Path]:
        """Keys of the independent configurations next to the base -> in which of them they are."""
        folders = dict.fromkeys(self.files[index].parent for index in self.bases) or ([self.configs] if self.configs else [])
        found: dict[str, Path] = {}
        for file in (folder / f"{name}.json" for folder in folders for name in BASE_NAMES):
            if file.is_file():
                found |= {top_level(key): file for key in ConfigParser.load_config_file(file) if top_level(key) not in found}
        return found

    @property
    def base(self) -> str:
        """The configuration that the others overlay, for messages."""
        return str(self.files[self.bases[-1]]) if self.files else str(self.configs or "the configuration")

    def source_of(self, key: str) -> str:
        """Where the value of a key comes from, as its user knows it: ``--key``, or the key and its file."""
        if key in map(normalised, self.values):
            return f"--{key}"
        for file, content in zip(reversed(self.files), reversed(self.contents), strict=True):
            for name in content:
                if normalised(name) == key:
                    return f"{file}, key {name!r}"
        return f"key {key!r}"

    def entries(self) -> Iterator[tuple[str, str, Any]]:
        """(where it is given, key, value) of everything that overlays the base: other files' entries, and `values`."""
        for index, (file, content) in enumerate(zip(self.files, self.contents, strict=True)):
            if index not in self.bases:
                yield from ((f"{file}, key {key!r}", key, value) for key, value in content.items() if not is_note(key))
        yield from ((f"--{key} {value}", key, value) for key, value in self.values.items() if not is_note(key))


def stands_alone(content: Mapping[str, Any]) -> bool:
    """Whether a configuration needs no other before it."""
    return "imports" in content and "run" in content


def normalised(key: str) -> str:
    """A key as MONAI reads it: ``+`` merges, ``#`` is another way to write ``::``.

    >>> normalised("+train#trainer")
    'train::trainer'
    """
    return key.removeprefix("+").replace("#", "::")


def top_level(key: str) -> str:
    """The first name of a nested key."""
    return normalised(key).split("::")[0]


def is_note(key: str) -> bool:
    """Whether an entry is a description or metadata."""
    return key.startswith("_")


def is_formula(value: Any) -> bool:
    """Whether MONAI computes a value from others."""
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def executing_parser() -> ConfigParser:
    """The parser of the configuration whose item is being evaluated by the caller.

    MONAI hands its parser to no expression or component, so it is looked up on the call stack: the outermost `ConfigParser` is
    the one that runs the workflow.

    Raises:
        RuntimeError: outside the evaluation of a configuration item.
    """
    found = [owner for frame in _frames() if isinstance(owner := frame.f_locals.get("self"), ConfigParser)]
    if not found:
        raise RuntimeError("only MONAI's ConfigParser can evaluate this item: it is not on the call stack")
    return found[-1]


def given_now(parser: ConfigParser) -> Given:
    """The arguments of the workflow that is being initialised or run.

    MONAI keeps neither the files nor the values that it merges; they are on the call stack of its command line. Of a workflow
    that was made otherwise no more is known than its configuration: then what no configuration of its folder has was given.
    """
    frames = list(_frames())
    for frame in frames:
        if frame.f_code in _OVERRIDES:
            return _of_command_line(frame, _OVERRIDES[frame.f_code])
    owners = [owner for frame in frames if isinstance(owner := frame.f_locals.get("self"), ConfigWorkflow)]
    if not owners:
        return Given()
    configs = Path(owners[-1].config_root_path)
    files = [file for file in configs.glob("*.json") if file.name != "metadata.json"]
    known = {top_level(key) for file in files for key in ConfigParser.load_config_file(file)}
    return Given((), {key: value for key, value in parser.get().items() if key not in known}, configs)


def _of_command_line(frame: FrameType, overrides: str) -> Given:
    """The arguments of a function of MONAI's command line, whose variable `overrides` holds the values."""
    arguments: dict[str, Any] = {}
    defaults = frame.f_locals.get("args_file")
    for source in ensure_tuple(defaults) if defaults is not None else ():
        arguments |= source if isinstance(source, dict) else ConfigParser.load_config_file(source)
    given = {"config_file": frame.f_locals.get("config_file"), **frame.f_locals.get(overrides, {})}
    arguments |= {key: value for key, value in given.items() if value is not None}
    files = arguments.get("config_file")
    values = {key: value for key, value in arguments.items() if key not in _OPTIONS}
    dropped = tuple(key for key, value in given.items() if value is None and key not in _OPTIONS)
    return Given(tuple(map(Path, ensure_tuple(files))) if files else (), values, dropped=dropped)


def _frames() -> Iterator[FrameType]:
    """Frames of the call stack, innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
