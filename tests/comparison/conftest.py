"""A tiny data set with maps that a real `SlideMapper` has made, and a report on them."""

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from scripts.comparison.data import ComparisonData, prepare_data
from scripts.comparison.planning.methods import find_methods
from scripts.comparison.reporting.report import Report
from scripts.comparison.rows.method_row import FAILED, SKIPPED, MethodRow
from scripts.comparison.scores.intervals import Interval, draw, pooled_reliability
from scripts.comparison.scores.scoring import MapScorer
from scripts.comparison.trainings.origin import this_call
from scripts.declarations.published import PublishedData, PublishedRow
from shared.data import TissueCache
from shared.inference import Compute, Outputs, SlideMapper, Tiles

SECONDS = {"labels": 5.0, "areas": 10.0, "masks": 240.0}
PAPER = PublishedData("Some <data>", "Somebody et al., 2020", (PublishedRow(("cdws_mil",), {"iou": 0.776}),))
MPP = 0.5
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


class Redness(nn.Module):
    """Logits that rise with the difference of red and green, cut off at a level."""

    def __init__(self, level: float = 140.0) -> None:
        super().__init__()
        self.level = level

    def forward(self, images):
        return (images[:, :1] - images[:, 1:2] - self.level) / 9


@pytest.fixture(scope="session")
def images_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of 96 x 96 px in five patients, every second one with a red tumour; four train, four test, two validate."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    lines = ["image,label,area,mask,case_id,split,mpp"]
    for index in range(10):
        rgb = np.full((96, 96, 3), (200, 120, 180)) + rng.normal(0, 12, (96, 96, 3))
        rgb[:20, :20] = 250
        mask = np.zeros((96, 96), np.uint8)
        if index % 2:
            mask[30 + 4 * index : 90, 24:72] = 255
            rgb[mask > 0] += (20, -80, -100)
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(folder / f"i{index}.png")
        Image.fromarray(mask).save(folder / f"m{index}.png")
        split = ("train", "test", "val")[index // 4]
        area = round(float((mask > 0).mean()), 3)
        lines.append(f"i{index}.png,{index % 2},{area},m{index}.png,case{index // 2},{split},{MPP}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


@pytest.fixture(scope="session")
def data(images_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> ComparisonData:
    return prepare_data(images_csv, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def maps(data: ComparisonData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps at another pixel size than the masks', none of them right everywhere."""
    folder = tmp_path_factory.mktemp("maps")
    SlideMapper(
        Redness(),
        mpp=1.0,
        threshold=0.4,
        tiles=Tiles(tile_size_px=32, margin_px=0),
        outputs=Outputs(map_downsample=1),
        compute=Compute(amp=False, device="cpu"),
    ).run(data.test_manifest, folder)
    return folder


def method(name):
    """The method of this name."""
    (found,) = find_methods(BUNDLES, [name])
    return found


@pytest.fixture
def changed_csv(images_csv, tmp_path):
    """A manifest of the images: name of a column -> function of the row's number and cell; None leaves the column out."""

    def write(**cells):
        with images_csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for index, row in enumerate(rows):
            row["image"], row["mask"] = (str(images_csv.parent / row[name]) for name in ("image", "mask"))
            row |= {name: cell(index, row[name]) for name, cell in cells.items() if cell is not None}
        columns = [name for name in rows[0] if cells.get(name, str) is not None]
        with (tmp_path / "changed.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / "changed.csv"

    return write


@pytest.fixture
def changed(changed_csv, tmp_path):
    """What a comparison takes from such a manifest."""
    return lambda **cells: prepare_data(changed_csv(**cells), tmp_path / "data")


@pytest.fixture(scope="session")
def scores(data, maps, tmp_path_factory):
    """Four images of four cases, the second and the fourth with tumour."""
    folder = tmp_path_factory.mktemp("scores")
    found = MapScorer(data, 0.5, TissueCache(folder / "tissue")).score(maps, folder / "scores.npz")
    return replace(found, cases=np.array(["a", "b", "c", "d"]))


@pytest.fixture(scope="session")
def rows(scores, maps):
    found, worse, floor = (drawn_of(scores, share) for share in (0.1, 0.3, None))
    effort = {"labels": 4, "areas": 2, "masks": 0}
    common = {"seeds": [0], "maps": [maps], "mlflow_runs": ["abc"], "peak_bytes": 2**30, "seconds_per_image": 0.5}
    common["reliability"] = pooled_reliability([scores])
    unknown = {"ods": Interval(math.nan, math.nan, math.nan)}
    return [
        MethodRow("cdws_mil", "CDWS-MIL", effort=effort, training_minutes=2.0, settings={"mpp": 0.5}, **common, **worse),
        MethodRow("camel", "CAMEL", effort=effort | {"areas": 0}, training_minutes=30.0, **common, **found),
        MethodRow("everything_is_tumour", "Everything is tumour", effort={}, **common, **floor),
        MethodRow("colour_only", "Colour only", effort=effort, **common, **worse | {"scores": worse["scores"] | unknown}),
        MethodRow("joint_seg_cls", "Joint", SKIPPED, "needs label 'mask': 2 of 2 training images with tumour have none"),
        MethodRow("wildcat", "WILDCAT", FAILED, "seed 0: ValueError: <b>odd</b>"),
    ]


def drawn_of(scores, share):
    """Of maps that miss a share of the tumour in each image, the first image's twice; None: that call everything tumour."""
    tp, fp, fn, tn = scores.counts.T
    missed = (tp * np.resize([share, 2 * share, share, share / 2], len(tp))).astype(int) if share else 0
    alarms = tn if share is None else 0
    counts = np.stack([tp - missed, fp + alarms, fn + missed, tn - alarms], 1)
    ods = scores.boundary.copy()
    ods[..., [0, 2]] = (ods[..., [0, 2]] * (1 - (share or 0.9))).astype(int)
    drawn = draw([replace(scores, counts=counts, boundary=ods)], 200)
    return {"draws": drawn, "scores": {name: drawn.interval(name) for name in drawn.trainings}}


@pytest.fixture
def report(rows, data, migrated_database, tmp_path):
    shutil.copy(migrated_database, tmp_path / "mlruns.db")
    uri = f"sqlite:///{tmp_path}/mlruns.db"
    Report(data, 0.5, SECONDS, PAPER, uri, None, 3, "comparison", origin=this_call(["--out", "a b"])).write(tmp_path, rows)
    return tmp_path


@pytest.fixture
def write(data, migrated_database, tmp_path):
    """Write the report of some rows; the texts of the table and the page, and the rows of the CSV file."""

    def make(rows, data=data, published=None, num_examples=0, **options):
        out = tmp_path / "written"
        out.mkdir(exist_ok=True)
        if not (out / "mlruns.db").exists():
            shutil.copy(migrated_database, out / "mlruns.db")
        uri = f"sqlite:///{out}/mlruns.db"
        made = Report(data, 0.5, SECONDS, published, uri, None, num_examples, "comparison", **options)
        made.write(out, rows)
        made.write(out, rows)
        with (out / "table.csv").open(newline="") as file:
            return (out / "table.md").read_text(), (out / "report.html").read_text(), list(csv.DictReader(file))

    return make
