"""One comparison from beginning to end: methods, data, trainings, report."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shared.engines.folder_lock import FolderLock
from shared.handlers import database_uri
from shared.sweeps.sweep import parse_value

from ..declarations.published import PublishedData, published_data
from .baselines import BASELINES
from .data import prepare_data
from .kept_rows import check_folder, note_folder
from .method_row import FAILED, SKIPPED
from .methods import check_given, find_methods
from .origin import command_text
from .report import Report
from .runs import Comparison, Tracker

logger = logging.getLogger("compare")

ROOT = Path(__file__).resolve().parents[2]


def run(arguments: argparse.Namespace) -> int:
    """Compare, unless another process does so in the same folder; the exit status."""
    lock = FolderLock(arguments.out.resolve())
    try:
        lock.acquire()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return compare(arguments)
    finally:
        lock.release()


def compare(arguments: argparse.Namespace) -> int:
    """Compare; the exit status."""
    out = arguments.out.resolve()
    # Bundles are run from the checkout.
    bundles, manifest = arguments.bundles.resolve(), arguments.manifest.resolve()
    os.chdir(ROOT)
    given: dict[str, dict[str, Any]] = {}
    for method, key, value in arguments.set:
        given.setdefault(method, {})[key] = parse_value(value)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or arguments.tracking_uri or database_uri(out)
    try:
        published = _published(bundles, arguments.dataset)
        methods = find_methods(bundles, arguments.methods)
        check_given(methods, given)
        _check_reference(arguments.reference, [method.key for method in methods], not arguments.no_baselines)
        check_folder(out, manifest, arguments.class_names)
        data = prepare_data(
            manifest,
            out / "data",
            arguments.class_names,
            arguments.tile_mpp,
            arguments.region_size_px,
            arguments.region_mpp,
            arguments.tumour_classes,
            arguments.annotation_frame,
        )
        note_folder(out, manifest, arguments.class_names)
        comparison = Comparison(
            data, out, methods, range(arguments.seeds), arguments.mpp, given, Tracker(uri, arguments.experiment)
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = {name: getattr(arguments, f"{name.removesuffix('s')}_seconds") for name in ("labels", "areas", "masks")}
    report = Report(
        data,
        mpp=arguments.mpp,
        seconds=seconds,
        published=published,
        tracking_uri=uri,
        mlflow_url=arguments.mlflow_url,
        num_examples=arguments.examples,
        experiment=arguments.experiment,
        reference=arguments.reference,
        command=command_text(sys.argv[1:]),
    )
    # After every method: what is known can be read while the next one trains.
    rows = comparison.run(baselines=not arguments.no_baselines, tell=partial(report.write, out))
    print((out / "table.md").read_text())
    print(out / "report.html")
    skipped = [row for row in rows if row.status == SKIPPED and not row.is_baseline]
    if len(skipped) == len(methods):
        print(f"error: every method was skipped, nothing was compared on {manifest}:", file=sys.stderr)
        print(*(f"  {row.key} {row.reason}" for row in skipped), sep="\n", file=sys.stderr)
        return 2
    return int(any(row.status == FAILED for row in rows))


def _check_reference(reference: str | None, methods: Sequence[str], baselines: bool) -> None:
    known = [*methods, *(BASELINES if baselines else ())]
    if reference is not None and reference not in known:
        raise ValueError(f"--reference {reference}: expected one of what is compared: {', '.join(known)}")


def _published(bundles: Path, dataset: str | None) -> PublishedData | None:
    """What the bundles say was published on a data set; None for no data set."""
    if dataset is None:
        return None
    known = published_data(bundles)
    if dataset not in known:
        raise ValueError(
            f"--dataset {dataset}: expected a data set on which a bundle of {bundles} has docs/published.json: "
            f"{', '.join(sorted(known)) or 'there is none'}"
        )
    return known[dataset]
