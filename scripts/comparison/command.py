"""One comparison from beginning to end: methods, data, trainings, report."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shared.engines.folder_lock import FolderLock
from shared.handlers import database_uri

from ..declarations.published import PublishedData, published_data
from ..options.key_values import key_values
from .data import MASKS_WHERE_GIVEN, prepare_data
from .data_checks import check_comparable
from .planning.methods import check_given, dataset_of, datasets, find_methods, truth_of, with_dataset
from .reporting.report import Report
from .rows.kept_rows import check_folder, kept_rows, note_folder
from .rows.method_row import FAILED, SKIPPED
from .runs import Comparison, Tracker
from .scores.ceilings import CEILINGS
from .scores.intervals import score_names
from .trainings.baselines import BASELINES
from .trainings.origin import shown_uri, this_call

logger = logging.getLogger("compare")

NO_DATASET = "none"
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
    uri = _tracking_uri(arguments.tracking_uri) or database_uri(out)
    origin = this_call(sys.argv[1:])
    if arguments.ordered_classes and len(arguments.class_names) < 3:
        logger.warning(
            "--ordered_classes has no effect: BACH's score needs three classes or more, and --class_names has %s",
            shlex.join(arguments.class_names),
        )
    try:
        given = _given(arguments.set)
        published = _published(bundles, arguments.dataset)
        dataset = _dataset(bundles, manifest, arguments.dataset)
        asked = find_methods(bundles, arguments.methods)
        methods = list({method.key: method for method in (with_dataset(one, dataset) for one in asked)}.values())
        # Methods are called as on the command line, or as the table calls them.
        called = {one.key: with_dataset(one, dataset).key for one in asked}
        given = {called.get(name, name): keys for name, keys in given.items()}
        arguments.reference = called.get(arguments.reference, arguments.reference)
        check_given(methods, given)
        arguments.truth = arguments.truth or truth_of(bundles, dataset, methods) or MASKS_WHERE_GIVEN
        check_folder(out, manifest, arguments.class_names, vars(arguments))
        _check_reference(arguments.reference, [method.key for method in methods], not arguments.no_baselines, out)
        data = prepare_data(
            manifest,
            out / "data",
            arguments.class_names,
            arguments.tile_mpp,
            arguments.region_size_px,
            arguments.region_mpp,
            arguments.tumour_classes,
            arguments.annotation_frame,
            arguments.truth,
        )
        check_comparable(data, arguments.mpp)
        note_folder(out, manifest, arguments.class_names, vars(arguments))
        comparison = Comparison(
            data,
            out,
            methods,
            range(arguments.seeds),
            arguments.mpp,
            given,
            Tracker(uri, arguments.experiment, score_names(data.class_names, arguments.ordered_classes)),
            by_labels_alone=arguments.select == "labels",
            origin=origin,
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
        origin=origin,
        ordered=arguments.ordered_classes,
    )
    # After every method: what is known can be read while the next one trains.
    rows = comparison.run(baselines=not arguments.no_baselines, report=partial(report.write, out))
    print((out / "table.md").read_text())
    print(out / "report.html")
    skipped = [row for row in rows if row.status == SKIPPED and not row.is_baseline]
    if len(skipped) == len(methods):
        print(f"error: every method was skipped, so nothing was compared on {manifest}:", file=sys.stderr)
        print(*(f"  {row.key} {row.reason}" for row in skipped), sep="\n", file=sys.stderr)
        return 2
    return int(any(row.status == FAILED or row.refused for row in rows))


def _tracking_uri(given: str | None) -> str | None:
    """Where the runs are tracked: the environment goes before the option, as in every training."""
    set_here = os.environ.get("MLFLOW_TRACKING_URI")
    if set_here and given and set_here != given:
        logger.warning("--tracking_uri %s is not used: MLFLOW_TRACKING_URI goes before it", shown_uri(given))
    return set_here or given


def _given(options: Sequence[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
    """Method, or ``all``, -> keys and values."""
    methods = dict.fromkeys(method for method, _, _ in options)
    return {name: key_values((key, value) for method, key, value in options if method == name) for name in methods}


def _check_reference(reference: str | None, methods: Sequence[str], baselines: bool, out: Path) -> None:
    known = [*methods, *([*BASELINES, *CEILINGS] if baselines else ())]
    known += [row.key for row in kept_rows(out, known)]
    if reference is not None and reference not in known:
        raise ValueError(f"--reference {reference}: expected one of the compared methods: {', '.join(known)}")


def _dataset(bundles: Path, manifest: Path, named: str | None) -> str | None:
    """The data set whose overlays the methods get: the named one, or that whose folder the manifest is in."""
    if named is not None:
        return None if named == NO_DATASET else named
    found = dataset_of(bundles, manifest)
    if found is not None:
        logger.info(
            "methods use their bundles' overlay %s, named like the manifest's folder; --dataset none turns this off", found
        )
    return found


def _published(bundles: Path, dataset: str | None) -> PublishedData | None:
    """The results that the bundles list as published on a data set; None without a data set or results."""
    if dataset is None or dataset == NO_DATASET:
        return None
    known = published_data(bundles)
    if dataset not in known and dataset_of(bundles, Path(dataset, "manifest.csv")) is None:
        raise ValueError(
            f"--dataset {dataset}: expected a data set for which a bundle in {bundles} has an overlay or docs/published.json: "
            f"{', '.join(sorted({*known, *datasets(bundles)})) or 'there is none'}"
        )
    return known.get(dataset)
