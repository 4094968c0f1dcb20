"""Every command in every README is one that its program takes; the first ones of README.md are run.

A script's options are parsed by its own parser, those of MONAI's command line are looked up in its signatures; keys and overlays
are checked as a run checks them before it begins. Other programs (gh, pip, unzip) are not looked at.
"""

import argparse
import importlib.util
import inspect
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from fire.parser import DefaultParseValue

from shared.front_door import Given, check_given
from shared.sweeps.sweep import parse_value
from shared.synthetic import DemoPlan, SlidePlan, write_demo

from ..bundles.conftest import IMAGE_SIZE_PX, TINY
from .documented import COMMANDS, READMES, ROOT, Command, unmarked_commands

BUNDLES = ROOT / "bundles"
# From the labels of images to the map of a slide: CAMEL's commands without overlays.
GOLDEN = [
    command
    for command in COMMANDS
    if command.readme == "README.md" and any(word.startswith("bundles/camel/configs/") for word in command.words)
]


class ParsedError(Exception):
    """Raised by a script's parser in place of an answer, which is its arguments: namespace and the words that it leaves over."""


def parsed(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    """Options and left-over words of a script that is run as far as its parser, which exits for what it does not know."""
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser, args=None, namespace=None):
        raise ParsedError(*parse(parser, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", list(words))
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParsedError) as caught:
        runpy.run_path(words[0], run_name="__main__")
    arguments, rest = caught.value.args
    return vars(arguments), rest


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """``--key value`` as MONAI's command line reads it."""
    assert all(word.startswith("--") for word in words[::2]), words
    return {key[2:]: DefaultParseValue(text) for key, text in zip(words[::2], words[1::2], strict=True)}


def value_of(key: str, text: str) -> dict[str, Any]:
    """A key with the value of ``--set``, ``--vary`` or ``--train_set``, as the scripts read it."""
    value = parse_value(text)
    return {key: "$None" if value is None else value}


def configs_of(bundle: str | Path, *names: str) -> tuple[Path, ...]:
    """Configurations of a bundle, by their names or paths."""
    named = ((ROOT / bundle / "configs" / f"{name}.json", ROOT / name) for name in names)
    return tuple(path if path.is_file() else inside for inside, path in named)


def given_to(options: Mapping[str, Any], rest: Sequence[str]) -> Iterator[Given]:
    """Configurations and keys that a script is told to use: for the methods of a comparison, the runs of a sweep, inference."""
    if "methods" in options:
        for method in options["methods"]:
            name, *overlays = method.split("+")
            yield Given(configs_of(BUNDLES / name, "train", *overlays))
        for method, key, value in options["set"]:
            if method != "all":
                yield Given(configs_of(BUNDLES / method.split("+")[0], "train"), value_of(key, value))
    elif options.get("config_file"):
        varied = [(key, value) for key, *values in options.get("vary", []) for value in values]
        for key, value in [*options["set"], *varied]:
            yield Given(tuple(ROOT / file for file in options["config_file"]), value_of(key, value))
    elif "bundle" in options and "train_set" in options:
        # The page names a bundle where it trains one.
        for key, value in options["train_set"]:
            yield Given(configs_of(options["bundle"], "train"), value_of(key, value))
    elif "bundle" in options:
        # What is shipped was trained.
        base = "train" if "run" in options else "inference"
        yield Given(configs_of(options["bundle"], base, *options["overlay"]), values_of(rest))
        return
    assert not rest


def check_bundle_run(command: Command) -> None:
    words = list(command.words[command.words.index("run") + 1 :])
    run_id = None if words[0].startswith("--") else words.pop(0)
    values = values_of(words)
    files = values.pop("config_file")
    # A bundle's own folder is where a downloaded one's would be.
    folder = ROOT if command.folder == "." else BUNDLES / command.folder
    given = Given(tuple(folder / file for file in (files if isinstance(files, list) else [files])), values)
    check_given(given)
    assert run_id is None or run_id in given.merged


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_one_that_its_program_takes(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = command.words
    if command.is_bundle_run:
        check_bundle_run(command)
        return
    if program == "bash":
        subprocess.run(["bash", "-n", ROOT / words[0]], check=True)
        # What starts a script passes its arguments on.
        words[0] = words[0].removesuffix(".sh") + ".py"
        program = "python" if (ROOT / words[0]).is_file() else program
    if program == "python" and words[:2] == ["-m", "monai.bundle"]:
        assert values_of(words[3:]).keys() <= inspect.signature(getattr(monai.bundle, words[2])).parameters.keys()
    elif program == "python" and words[0] == "-m":
        assert importlib.util.find_spec(words[1])
    elif program == "python":
        for given in given_to(*parsed(words, monkeypatch)):
            check_given(given)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_command_stands_in_a_block_without_a_language(readme: Path) -> None:
    assert not unmarked_commands(readme), "name the language (bash) of the block, or the commands are not tested"


@pytest.mark.slow
def test_the_first_commands_lead_from_labels_to_a_map(tmp_path: Path) -> None:
    """As they stand in README.md, in a checkout whose data are small; after them settings that make the networks small too."""
    bundle = tmp_path / "bundles/camel"
    bundle.mkdir(parents=True)
    for link, source in {
        tmp_path / "shared": "shared",
        bundle / "shared": "shared",
        bundle / "configs": "bundles/camel/configs",
    }.items():
        link.symlink_to(ROOT / source)
    slides = tuple(SlidePlan(split, 0.4, (320, 420)) for split in ("train", "val", "test"))
    write_demo(tmp_path / "data/demo", DemoPlan(images={"train": 16, "val": 4, "test": 4}, size_px=IMAGE_SIZE_PX, slides=slides))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    settings = TINY | {"num_workers": 1, "margin_px": 16}
    for command in GOLDEN:
        config = Given((ROOT / command.words[command.words.index("--config_file") + 1],)).merged
        small = [word for name, value in settings.items() if name in config for word in (f"--{name}", str(value))]
        subprocess.run([sys.executable, *command.words[1:], *small], cwd=tmp_path, env=environment, check=True)
    assert (bundle / "models/evaluation/metrics.json").is_file()
    slides = {path.stem for path in (tmp_path / "data/demo/slides").iterdir()}
    assert {path.name for path in (tmp_path / "maps").iterdir()} >= {
        f"{slide}{suffix}" for slide in slides for suffix in (".ome.tif", ".geojson", ".png")
    }
