"""Enriched labels on disk: the picks of cMIL as a manifest, and the labels of whole lattices as a CSV (CAMEL, section 3.1).

Both are plain CSV files, written under a temporary name and renamed, in the order of the training manifest: the same run
gives the same bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ...writers.atomic import atomic_path
from ..manifest import REGION, load_manifest, write_manifest
from ..record import Record

KEY = ("image", *REGION)


def encode_instances(labels: Tensor) -> str:
    """Labels ``(N * N,)`` as a string of 0 and 1, row by row.

    >>> encode_instances(torch.tensor([0, 1, 1, 0]))
    '0110'
    """
    return "".join("1" if label else "0" for label in labels.tolist())


def decode_instances(text: str) -> Tensor:
    """The inverse of `encode_instances`: ``(N * N,)`` int64."""
    return torch.tensor([int(digit) for digit in text], dtype=torch.long)


def write_instance_labels(records: Sequence[Record], labels: Sequence[Tensor], path: str | Path) -> None:
    """Write the instance labels of every image: its place (`KEY`), ``label``, ``instances`` and ``num_tumour``.

    Args:
        records: manifest records.
        labels: instance labels of each record, ``(N * N,)``.
        path: of the CSV.
    """
    rows = [
        {
            **{name: record.get(name) for name in KEY},
            "label": record["label"],
            "num_tumour": int(instances.sum()),
            "instances": encode_instances(instances),
        }
        for record, instances in zip(records, labels, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=[*KEY, "label", "num_tumour", "instances"])
    for name in REGION:
        frame[name] = frame[name].astype("Int64")
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def attach_instance_labels(records: Sequence[Record], path: str | Path) -> list[Record]:
    """Copies of `records`, each with its ``instances`` from the file of `write_instance_labels`.

    Raises:
        ValueError: if the file is missing or lacks an image: the stage that writes it has not run; and if all instances have the
            same label.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the relabel stage first (run_relabel)")
    frame = pd.read_csv(path, dtype={"instances": str})
    for name in REGION:
        frame[name] = frame[name].astype("Int64")
    found: Mapping[tuple[Any, ...], str] = {_key(row): row["instances"] for row in frame.to_dict("records")}
    attached: list[Record] = []
    for record in records:
        instances = found.get(_key(record))
        if instances is None:
            raise ValueError(
                f"{path} has no instance labels for {record['image']} (row {record.get('row')}): delete it and run the relabel "
                "stage again"
            )
        attached.append({**record, "instances": instances})
    found_labels = "".join(record["instances"] for record in attached)
    if len(set(found_labels)) == 1:
        raise ValueError(
            f"{path}: {found_labels.count('1')} of {len(found_labels)} instances are labelled tumour; both tumour and normal "
            "ones are needed. Start again in another output_dir, and retrain for more epochs (retrain::num_epochs)"
        )
    return attached


def load_picks(paths: Sequence[str | Path], over_sampled_as: Sequence[Record] | None = None) -> list[Record]:
    """The picks in one or several manifests that the construct stage wrote, each instance once.

    Args:
        paths: of the manifests.
        over_sampled_as: the training images, of which those of the rarer label are over-sampled to the number of the others
            (CAMEL, section 4.1): the picks of these images come as often as the images do. None: each pick once.

    Raises:
        ValueError: if a file is missing, or if there is no pick of one of the classes.
    """
    merged: dict[tuple[Any, ...], Record] = {}
    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"{path} does not exist: run the construct stage first (run_construct)")
        for record in load_manifest(path):
            merged.setdefault(_key(record), record)
    picks = list(merged.values())
    if {record["label"] for record in picks} != {0, 1}:
        raise ValueError(
            f"{', '.join(str(path) for path in paths)}: {len(picks)} picks, all of one class; the classifiers agree with the "
            "image labels on one class only. Train cMIL for more epochs, or with norm: group."
        )
    return picks if over_sampled_as is None else _over_sampled(picks, over_sampled_as)


def _over_sampled(picks: Sequence[Record], images: Sequence[Record]) -> list[Record]:
    counts = Counter(record["label"] for record in images)
    repeats = {label: Fraction(max(counts.values()), count) for label, count in counts.items()}
    seen: Counter[int | None] = Counter()
    repeated = []
    for pick in picks:
        label = pick["label"]
        # A share of a copy is evened out over the picks that follow.
        first, last = (math.floor(number * repeats[label]) for number in (seen[label], seen[label] + 1))
        repeated += [pick] * (last - first)
        seen[label] += 1
    return repeated


def write_picks(picks: Sequence[Record], path: str | Path) -> None:
    """Write picked instances as a manifest: regions of their images with the image's label, ``criterion`` and ``probability``."""
    write_manifest(picks, path, extra_columns=("criterion", "probability"))


def _key(row: Mapping[Any, Any]) -> tuple[Hashable, ...]:
    return (str(row["image"]), *(None if pd.isna(row.get(name)) else int(row[name]) for name in REGION))
