"""Which test rows are scored, and those of each group of the manifest apart, beside what papers report of this group."""

import csv
import re
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from scripts.comparison.data import prepare_data
from scripts.comparison.data_checks import check_comparable
from scripts.comparison.reporting.report import Report
from scripts.comparison.rows.method_row import SKIPPED, MethodRow, fill_scores
from scripts.comparison.scores.scoring import MapScorer
from scripts.declarations.published import PublishedData, PublishedRow
from shared.data import TissueCache

SECONDS = {"labels": 5.0, "areas": 10.0, "masks": 240.0}
GROUPS = {4: "inside", 5: "inside", 6: "outside", 7: "outside"}
PAPER = PublishedData(
    "Slides",
    "Somebody et al., 2020",
    (
        PublishedRow(("camel",), {"iou": 0.111}),
        PublishedRow(("camel",), {"iou": 0.222}, group="inside"),
        PublishedRow(("camel",), {"iou": 0.333}, {"share": 0.5}, group="outside"),
    ),
)


@pytest.fixture
def grouped(images_csv, tmp_path):
    """The images with groups by their numbers, in a comparison's data; `only` leaves the others out of the test split."""

    def make(groups, only=range(10), **options):
        with images_csv.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for index, row in enumerate(rows):
            row |= {name: str(images_csv.parent / row[name]) for name in ("image", "mask")}
            row |= {"group": groups.get(index, ""), "case_id": f"patient {index}"}
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        with (folder / "images.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for index, row in enumerate(rows) if row["split"] != "test" or index in only)
        return prepare_data(folder / "images.csv", folder / "data", **options)

    return make


@pytest.fixture
def scored(maps, tmp_path):
    """A method's row with the scores of its maps of some data."""

    def make(data, name="scores", config=None):
        row = MethodRow("camel", "CAMEL", seeds=[0], maps=[maps], mlflow_runs=[""], config=config or {})
        fill_scores(row, [MapScorer(data, 0.5, TissueCache(tmp_path)).score(maps, tmp_path / f"{name}.npz")], data, 50)
        return row

    return make


def test_a_group_scores_what_it_does_alone(grouped, scored):
    data = grouped(GROUPS)
    assert (data.groups, data.only_group) == (["inside", "outside"], None)
    row = scored(data)
    for group, indices in (("inside", (4, 5)), ("outside", (6, 7))):
        alone = scored(grouped(GROUPS, only=indices), group)
        found = row.of_group(group)
        assert found.draws.trainings == {name: pytest.approx(one, nan_ok=True) for name, one in alone.draws.trainings.items()}
        assert (found.scores["ece"].low, found.scores["ece"].high) == (alone.scores["ece"].low, alone.scores["ece"].high)
        assert found.scores["ece"].is_known
    assert row.of_group("inside").scores["ece"].mean != row.scores["ece"].mean


def test_one_group_divides_only_from_rows_without(grouped):
    alone = grouped(dict.fromkeys(range(4, 8), "inside"))
    assert (alone.groups, alone.only_group) == ([], "inside")
    divided = grouped({4: "inside", 5: "inside"})
    assert (divided.groups, divided.only_group) == (["inside"], None)
    assert grouped({}).groups == []


@pytest.fixture
def write(migrated_database, tmp_path):
    """Write the report of some rows; the text of the table and of the page, and their folder."""

    def make(data, *rows, paper=PAPER):
        out = tmp_path / "report"
        out.mkdir(exist_ok=True)
        shutil.copy(migrated_database, out / "mlruns.db")
        Report(data, 0.5, SECONDS, paper, f"sqlite:///{out}/mlruns.db", None, 0, "comparison").write(out, rows)
        return (out / "table.md").read_text(), (out / "report.html").read_text(), out

    return make


@pytest.mark.parametrize(("share", "outside"), [(0.5, ["33.3"]), (0.6, [])])
def test_published_numbers_stand_beside_their_group(grouped, scored, write, share, outside):
    data = grouped(GROUPS)
    text, page, out = write(data, scored(data, config={"share": share}))
    whole, inside, other = re.split(r"Test images of the group \w+:", text)
    of_rows = [re.findall(r"\| CAMEL, published \|.*", part) for part in (whole, inside, other)]
    found = [re.findall(r"\d\d\.\d", "".join(lines)) for lines in of_rows]
    assert found == [["11.1"], ["22.2"], outside]
    assert re.findall(r'class="paper">([\d.]+)<', page) == ["11.1", "22.2", *outside]
    assert [PAPER.citation in part for part in (whole, inside, other)] == [True, True, bool(outside)]
    assert page.count(PAPER.citation) == 2 + len(outside)
    with (out / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["method"], row["published_iou"]) for row in rows] == [
        ("inside", "camel", "0.222"),
        ("outside", "camel", "0.333" if outside else ""),
    ]


@pytest.mark.parametrize("unit", [None, "images", "slides"])
def test_papers_are_cited_where_a_number_of_theirs_stands(grouped, scored, write, unit):
    """Of the group inside alone, and not beside images where it is of slides."""
    (row,) = PAPER.of_groups({"inside"}).rows
    data = grouped(GROUPS)
    text, page, _ = write(data, scored(data), paper=replace(PAPER, rows=(replace(row, unit=unit),)))
    whole, inside, outside = re.split(r"Test images of the group \w+:", text)
    is_shown = unit != "slides"
    assert [PAPER.citation in part for part in (whole, inside, outside)] == [False, is_shown, False]
    assert ("22.2" in inside, page.count(PAPER.citation)) == (is_shown, int(is_shown))


def test_the_report_of_a_first_method_that_was_skipped_has_no_groups_yet(grouped, scored, write):
    data, skipped = grouped(GROUPS), MethodRow("wildcat", "WILDCAT", SKIPPED, "needs slides")
    *_, out = write(data, skipped)
    assert not (out / "groups.csv").exists()
    write(data, skipped, scored(data))
    assert (out / "groups.csv").exists()
    # Of an earlier call.
    write(data, skipped)
    assert not (out / "groups.csv").exists()


def test_where_all_are_of_one_group_its_numbers_stand_beside_all(grouped, scored, write):
    data = grouped(GROUPS, only=(4, 5))
    text, page, out = write(data, scored(data))
    # A row of all images, and one of the group that all are of.
    assert re.findall(r'class="paper">([\d.]+)<', page) == ["22.2"]
    assert "of the group" not in text
    assert not (out / "groups.csv").exists()


def test_rows_with_label_0_and_no_mask_are_scored_unless_masks_alone_are(grouped, images_csv, tmp_path):
    """As the truth of whole slides: masks_where_given and masks_only."""
    text = (images_csv).read_text().replace(",m4.png,", ",,")
    for index in range(10):
        for name in (f"i{index}.png", f"m{index}.png"):
            Image.open(images_csv.parent / name).save(tmp_path / name)
    (tmp_path / "images.csv").write_text(text)
    for truth, names in (("masks_where_given", ["i4", "i5", "i6", "i7"]), ("masks_only", ["i5", "i6", "i7"])):
        data = prepare_data(tmp_path / "images.csv", tmp_path / "data", truth=truth)
        check_comparable(data)
        assert [record["image"].rpartition("/")[2].removesuffix(".png") for record in data.records] == names
        # Whatever is scored, all of the test split is mapped.
        assert len(data.test_manifest.read_text().splitlines()) == 5
