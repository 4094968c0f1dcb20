"""How a documented command becomes a small one, and which commands are not run at all and why.

What a command says itself stays as it is, but for `REPLACED`; behind it come the keys of `KEYS` that its configuration has, and
the options of `ADDED`. The data that it names are generated small, in the checkout's ``data`` and at the READMEs' own paths.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ..bundles.conftest import IMAGE_SIZE_PX, TINY, TINY_CDWS, TINY_JOINT, TINY_SLIDES
from .documented import Command

# ImageNet weights would be downloaded.
_ALL = {"pretrained": False}
# Maps are read by at least one process.
_OF_MAPS = {"num_workers": 1}
_ONE_EPOCH = {"num_epochs": 1}
_SUPERVISED = {name: value for name, value in TINY_CDWS.items() if name != "mpp"} | {"backbone": "resnet10"}
# Of each bundle: what makes its training small.
KEYS: dict[str, dict[str, Any]] = {
    # In an epoch the classifier may find no tumour in small instances, which is an error.
    "camel": TINY | _ALL | {"crop_size_px": IMAGE_SIZE_PX * 3 // 4, "retrain::num_epochs": 4},
    "cdws_mil": TINY_CDWS | _ALL | _ONE_EPOCH,
    "alpha_beta_mil": TINY_SLIDES | _ALL | _ONE_EPOCH,
    "joint_seg_cls": TINY_JOINT | _ALL | _ONE_EPOCH | {"steps_per_epoch": 2, "margin_px": 8},
    "fully_supervised": _SUPERVISED | _ALL | _ONE_EPOCH | {"head_channels": 16},
    "wildcat": _SUPERVISED | _ALL | _ONE_EPOCH,
    "mil_boosting": {
        "image_size_px": IMAGE_SIZE_PX,
        "mpp": 0.5,
        "num_workers": 0,
        "patch_size_px": 16,
        "patches_per_image": 16,
        "num_trees": 6,
        "rounds_per_epoch": 3,
    },
}

# Words of a command -> words in their place; sizes, and sweeps of many runs that become one run.
REPLACED = {
    "--image_size_px 512": "--image_size_px 64",
    "--image_size_px 1280": "--image_size_px 64",
    "--size_px 1280": "--size_px 64",
    "--size_px 128 --mpp 8": "--size_px 32 --mpp 4",
    "--nproc_per_node=2": "--nproc_per_node=1",
    "--vary fold 0 1 2 3 4 --over fold --output_dir": "--vary fold 0 --over fold --output_dir",
    '--vary etas "[1, 2, 4]" "[2.5, 5, 10]" "[5, 10, 20]" --vary eta_fuse 5 10 20 --vary fold 0 1 2 3 4': (
        '--vary etas "[1, 2, 4]" --vary eta_fuse 5 --vary fold 0'
    ),
    "--vary generalized_mean_r 4 8 20": "--vary generalized_mean_r 8",
    "--set num_epochs 4": "",
    "--backbone resnet50 --pretrained True": "--backbone resnet10",
    "--backbone resnet50 --output_dir": "--backbone resnet10 --output_dir",
    "--shares 0.01 0.05 0.2 1 --modes S S+C --seeds 0 1 --set num_epochs 12": "--shares 1 --modes S --seeds 0",
}

# Beginning of a command -> options behind it.
ADDED = {
    "python scripts/prepare_patches.py": "--min_tissue 0",
    "python scripts/prepare_bach.py": "--size_px 8",
    "python scripts/prepare_camelyon16.py": "--size_px 64 --training_slides 4 --allow_missing",
    "python scripts/benchmark.py cmil": (
        "--backbone resnet10 --image_size_px 64 --batch_size 2 --repeats 1 --instances_per_side 2"
    ),
    "python scripts/benchmark.py tiles": (
        "--backbone resnet10 --tiles_per_slide 8 --tile_size_px 32 --mpp 1 --steps 1 --rounds 1 --num_workers 0 --threads 1"
    ),
    "python scripts/benchmark.py alpha-beta": "--alphas 0.2 --betas 0.2",
    "python scripts/benchmark.py area-noise": "--offsets 0",
    # EBHI-Seg is not here: its settings on generated images.
    "python -m monai.bundle run --config_file "
    "\"['bundles/mil_boosting/configs/train.json','bundles/mil_boosting/configs/ebhi_seg.json']\"": (
        "--manifest data/demo/images.csv"
    ),
    # The miniature of CAMELYON16 is noise, in which nothing can be found.
    "python -m monai.bundle run --config_file "
    "\"['bundles/camel/configs/train.json','bundles/camel/configs/camelyon16.json']\"": "--manifest data/demo/images.csv",
    # The miniature of BACH is too small to train at its 7.5 um per pixel.
    "python -m monai.bundle run --config_file "
    "\"['bundles/joint_seg_cls/configs/train.json','bundles/joint_seg_cls/configs/bach.json']\"": (
        "--manifest data/demo_breast/images.csv --mpp 8"
    ),
}

# Scripts that take the keys of a bundle's inference.json as `--KEY VALUE`.
_TAKE_KEYS_OF_INFERENCE = ("scripts/infer.py", "scripts/calibrate.py")
# Scripts that take a bundle's keys as `--set KEY VALUE`, and the bundle whose train.json they take by default.
_SWEEPS = {"alpha-beta": "alpha_beta_mil", "area-noise": "cdws_mil", "shares": "joint_seg_cls"}

# Reason -> beginnings of the commands that are not run, only parsed.
NOT_RUN = {
    "installs from the network": (
        # Its three commands are README.md's next ones, and are run.
        "bash scripts/demo.sh",
        # And runs this test.
        "bash scripts/test.sh",
        "python -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt",
    ),
    "needs a Ray cluster with GPUs": (
        "python scripts/infer.py --manifest my/slides.csv --bundle bundles/camel --model_dir runs/mine --out maps --engine ray",
    ),
    "two GPUs; README.md's is run with one process, and tests/bundles runs multi_gpu_train.json with two": tuple(
        "torchrun --standalone --nproc_per_node=2 -m monai.bundle run --config_file "
        f"\"['bundles/{name}/configs/train.json','bundles/{name}/configs/multi_gpu_train.json']\""
        for name in ("fully_supervised", "wildcat", "mil_boosting")
    ),
    "nine trainings, each a process of its own; the sweeps of cdws_mil are run": tuple(
        f"python scripts/sweep.py --config_file bundles/{name}/configs/train.json" for name in ("fully_supervised", "wildcat")
    ),
    "a server, which does not end, in an environment of its own; tests/label_server runs it": ("bash scripts/serve.sh",),
    "trains every bundle; tests/comparison runs it": ("python scripts/compare.py",),
    "writes into the repository; tests/packing runs it": ("python scripts/pack.py",),
    "publishes, or loads what is published; tests/packing loads from servers of its own": (
        "gh release upload",
        "unzip",
        "python -m monai.bundle download",
    ),
}


def is_run(command: Command) -> bool:
    return not any(starts_with(command, start) for starts in NOT_RUN.values() for start in starts)


def bundle_of(command: Command) -> str | None:
    """The bundle whose configuration a command reads."""
    if command.words[:2] == ("python", "scripts/benchmark.py") and command.words[2] in _SWEEPS:
        return _SWEEPS[command.words[2]]
    paths = command.config_files + command.values_of("--bundle")
    names = {path.split("/")[1] if path.startswith("bundles/") else command.folder for path in paths}
    return names.pop() if len(names) == 1 else None


def small_words(command: Command) -> list[str]:
    """The words of a command in its small form."""
    words = list(command.words)
    for before, after in REPLACED.items():
        old, new = shlex.split(before), shlex.split(after)
        place = find(words, old)
        if place is not None:
            words[place : place + len(old)] = new
    added = [text for start, text in ADDED.items() if starts_with(command, start)]
    return words + _keys(command) + [word for text in added for word in shlex.split(text)]


def starts_with(command: Command, start: str) -> bool:
    words = shlex.split(start)
    return list(command.words[: len(words)]) == words


def find(words: list[str], part: list[str]) -> int | None:
    """Where `part` begins in `words`."""
    places = (index for index in range(len(words) - len(part) + 1) if words[index : index + len(part)] == part)
    return next(places, None)


def _keys(command: Command) -> list[str]:
    """Of a bundle's small settings those that the command's configuration has and that the command does not set itself."""
    bundle = bundle_of(command)
    if bundle is None:
        return []
    if command.is_bundle_run:
        return _options(KEYS[bundle], command.config, command.keys)
    file = "inference" if command.words[1] in _TAKE_KEYS_OF_INFERENCE else "train"
    config = Command("", 0, ("--config_file", f"bundles/{bundle}/configs/{file}.json")).config
    if file == "inference":
        return _options(KEYS[bundle], config, [word[2:] for word in command.words if word.startswith("--")])
    settings = {name: str(value) for name, value in KEYS[bundle].items() if name in config}
    return [word for name, value in settings.items() for word in ("--set", name, value)]


def _options(settings: dict[str, Any], config: dict[str, Any], given: Sequence[str] = ()) -> list[str]:
    settings = settings | (_OF_MAPS if "slide_mapper" in config else {})
    return [
        word for name, value in settings.items() if name in config and name not in given for word in (f"--{name}", str(value))
    ]
