"""Write the manifest of TCGA slides: label and case from the barcode, location from the GDC sample sheet, split by case.

python scripts/prepare.py tcga tcga.csv --slides slides --table gdc_sample_sheet.tsv --section frozen

At least one of --slides and --table is needed. Only a sample sheet has the projects: without it every slide is
``in_distribution``. Without --slides the files are expected as ``<id>/<file>`` next to the manifest, where
``gdc-client download -m <GDC manifest>`` puts them.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.options.numbers import SEED
from shared.data.manifest import write_manifest
from shared.data.public.tcga import PUBLISHED_SLIDES, tcga_records
from shared.data.public.tcga_barcode import TRAINING_LOCATIONS
from shared.data.record import Record
from shared.writers import check_inputs_stay

_LACK = {
    "train": "nothing can be learned without it",
    "val": "without it no checkpoint and no threshold can be chosen",
    "test": "without it there is no AUC over its slides",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest to write")
    parser.add_argument("--slides", type=Path, help="folder of TCGA-*.svs files, searched with all its subfolders")
    parser.add_argument("--table", type=Path, help="GDC manifest or GDC sample sheet that lists the slides to take")
    parser.add_argument(
        "--section",
        choices=["frozen", "diagnostic", "all"],
        default="all",
        help="kind of section to take (default all; the paper: frozen)",
    )
    parser.add_argument(
        "--training_locations",
        nargs="+",
        metavar="LOCATION",
        help="organs to train on; slides of all others are only used for testing (default: "
        f"{' '.join(repr(name) for name in TRAINING_LOCATIONS)})",
    )
    parser.add_argument("--allow_missing", action="store_true", help="leave out slides of the table that are not in --slides")
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the split (default 0)")


def prepare(arguments: Namespace) -> Iterator[str]:
    check_inputs_stay(arguments.manifest.parent, [arguments.manifest.name], [arguments.table] if arguments.table else [])
    records, missing = tcga_records(
        arguments.table,
        arguments.slides,
        arguments.section,
        arguments.training_locations,
        arguments.allow_missing,
        arguments.seed,
    )
    has_location = any(record["location"] for record in records)
    write_manifest(records, arguments.manifest)
    if missing:
        yield f"{arguments.table}: {len(missing)} of its slides were left out because they were not found in {arguments.slides}"
    yield f"{arguments.manifest}: {_count(records)}"
    for location in sorted({record["location"] or "" for record in records}) if has_location else ():
        beside = f" ({PUBLISHED_SLIDES[location]} frozen sections in the paper)" if location in PUBLISHED_SLIDES else ""
        yield f"  {location}: {_count([record for record in records if record['location'] == location])}{beside}"
    for group, splits in (("in_distribution", ("train", "val", "test")), ("out_of_location", ("test",))):
        if not any(record["group"] == group for record in records):
            continue
        for split in splits:
            for label, name in ((1, "tumour"), (0, "normal")):
                wanted = {"group": group, "split": split, "label": label}
                part = [record for record in records if wanted.items() <= record.items()]
                if part:
                    yield f"  {group} {split}, {name}: {_count(part)}"
                else:
                    print(f"warning: {group} {split} has no {name} slide: {_LACK[split]}", file=sys.stderr)


def _count(records: Sequence[Record]) -> str:
    return f"{len(records)} slides of {len({record['case_id'] for record in records})} cases"
