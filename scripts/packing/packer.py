"""Bundles and their trained networks, packed for download."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .archive import checksum, unpack, write_archive
from .contents import TORCHSCRIPT, WEIGHTS, is_exported, stage, stage_encoder, stage_weights
from .model_info import LARGE_BYTES, check_unchanged, record, write_large_files
from .refusals import reasons, settings_changed
from .zoo_process import Task, run_tasks

LARGE_NAMES = (WEIGHTS, TORCHSCRIPT)


@dataclass(frozen=True)
class Packed:
    """A packed bundle: its folder in the repository, its zip with its SHA-1, and with it copies of the files above 25 MB."""

    bundle: Path
    entry: str
    archive: Path
    checksum: str
    large_files: tuple[Path, ...]


def bundle_names(bundles: Path) -> list[str]:
    """The bundles of a folder: what holds ``configs/metadata.json``."""
    return sorted(file.parents[1].name for file in bundles.glob("*/configs/metadata.json"))


def pack(
    bundles: Path,
    names: Sequence[str],
    out: Path,
    training_of: Callable[[str], Path],
    model_info: Path,
    address: str,
) -> list[Packed]:
    """Pack bundles, and record them in ``model_info.json`` and their ``large_files.yml``.

    The same bundle, weights and versions of torch and MONAI give the same bytes.

    Args:
        bundles: folder of bundles.
        names: of those to pack.
        out: gets ``<name>_v<version>.zip`` and copies of files above 25 MB.
        training_of: the output folder of a bundle's training.
        model_info: written or updated.
        address: of the release that the files of `out` will be uploaded to.

    Raises:
        ValueError: with every reason against packing one of them; nothing was written then.
    """
    unknown = [name for name in names if name not in bundle_names(bundles)]
    if unknown:
        raise ValueError(f"{bundles} has no bundle {', '.join(unknown)}; the bundles are {', '.join(bundle_names(bundles))}")
    found = [reason for name in names for reason in reasons(bundles / name, training_of(name))]
    if found:
        raise ValueError("\n".join(found))
    with tempfile.TemporaryDirectory(prefix="packing-") as temporary:
        made = _pack_into(Path(temporary), bundles, names, training_of)
        for entry, archive in made.values():
            check_unchanged(model_info, entry, checksum(archive))
        return [_publish(bundles / name, *made[name], out, model_info, address) for name in names]


def _pack_into(
    temporary: Path, bundles: Path, names: Sequence[str], training_of: Callable[[str], Path]
) -> dict[str, tuple[str, Path]]:
    staged = {name: temporary / "staged" / name for name in names}
    for name, folder in staged.items():
        training = training_of(name)
        stage(bundles / name, folder)
        stage_weights(training, folder / "models", settings_changed(bundles / name, training))
        stage_encoder(folder, training)
    # In a separate process for each: the names in a TorchScript file count what its process has scripted before.
    results = run_tasks(
        [Task(name, folder, "export_torchscript", {}) for name, folder in staged.items() if is_exported(folder / "models")]
    )
    failed = [f"{result.name}: the network cannot be exported: {result.error}" for result in results if result.error]
    if failed:
        raise ValueError("\n".join(failed))
    made = {}
    for name, folder in staged.items():
        version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
        entry = f"{name}_v{version}"
        made[name] = (entry, temporary / f"{entry}.zip")
        write_archive(folder, made[name][1])
    return made


def _publish(bundle: Path, entry: str, made: Path, out: Path, model_info: Path, address: str) -> Packed:
    out.mkdir(parents=True, exist_ok=True)
    archive = out / made.name
    large: dict[str, tuple[Path, str]] = {}
    with tempfile.TemporaryDirectory(prefix="packed-", dir=out) as temporary:
        folder = unpack(made, Path(temporary))
        for name in LARGE_NAMES:
            file = folder / "models" / name
            if file.is_file() and file.stat().st_size > LARGE_BYTES:
                # Not _v: MONAI would take it for a version of the bundle.
                asset = out / f"{entry.replace('_v', '-')}-generated-data-{name}"
                file.replace(asset)
                large[f"models/{name}"] = (asset, f"{address}/{asset.name}")
        shutil.move(made, Path(temporary) / made.name)
        (Path(temporary) / made.name).replace(archive)
    write_large_files(bundle, large)
    digest = checksum(archive)
    record(model_info, entry, digest, f"{address}/{archive.name}")
    return Packed(bundle, entry, archive, digest, tuple(file for file, _ in large.values()))
