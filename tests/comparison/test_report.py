"""What the report says, in its page and its tables."""

import base64
import csv
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.comparison.reporting.cells import difference_cell
from scripts.comparison.reporting.gallery import examples
from scripts.comparison.reporting.parts import case_values, worst_cases
from scripts.comparison.reporting.plots import Point, label_places, scatter
from scripts.comparison.reporting.report import Report
from scripts.comparison.reporting.table import difference_text
from scripts.comparison.rows.differences import verdict
from scripts.comparison.scores.intervals import Difference, Interval, draw, score_names

from .conftest import SECONDS, drawn_of

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.references, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [(tag, value) for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_needs_no_other_file(report):
    text = (report / "report.html").read_text()
    page = Page(text)
    assert {tag for tag, value in page.references if not value.startswith("data:")} == set()
    assert all(url.startswith("data:") for url in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "127.0.0.1" not in text
    assert "<code>python scripts/compare.py --out &#39;a b&#39;</code>" in text
    assert re.search(r"version \d+\.\d+\.\d+, commit [0-9a-f]{12}", text)


def test_links_lead_where_readers_can_go(data, rows, migrated_database, tmp_path):
    shutil.copy(migrated_database, tmp_path / "mlruns.db")
    uri = f"sqlite:///{tmp_path}/mlruns.db"
    Report(data, 0.5, SECONDS, None, uri, "https://mlflow.example.org", 0, "comparison").write(tmp_path, rows)
    assert "https://mlflow.example.org/#/experiments/0/runs/abc" in (tmp_path / "report.html").read_text()


def test_what_does_not_beat_everything_is_tumour_is_marked(report, rows, scores):
    many = replace(scores.of([0, 1, 2, 3] * 3), cases=np.array(list("abcdefghijkl")))
    once, floor = (replace(row, **drawn_of(many, share)) for row, share in ((rows[1], 0.1), (rows[2], None)))
    assert once.draws.difference(floor.draws, "iou").low > 0
    same, worse = replace(once, draws=floor.draws), replace(once, draws=drawn_less(floor.draws))
    rather = replace(once, draws=replace(floor.draws, trainings={"iou": floor.draws.trainings["iou"] - 0.01}))
    assert verdict(rather, [rather, floor], "iou") == "not distinguishable from “everything is tumour”"
    title = "“everything is tumour”"
    assert [verdict(row, [row, floor], "iou") for row in (replace(once, seeds=[0, 1]), once, same, worse, floor)] == [
        "",
        f"ahead of {title} in one training; others are unknown",
        f"not distinguishable from {title}",
        f"below {title}",
        "",
    ]
    # Of four cases two have tumour, from which nothing follows.
    with (report / "table.csv").open(newline="") as file:
        found = {row["method"]: row["verdict"] for row in csv.DictReader(file)}
    assert (found["camel"], found["everything_is_tumour"]) == (f"not distinguishable from {title}", "")


def drawn_less(draws):
    return replace(draws, trainings={"iou": draws.trainings["iou"] / 2}, of_cases={"iou": draws.of_cases["iou"] / 2})


def test_seeds_and_cases_have_their_rows(report, rows):
    seeds, cases = (list(csv.DictReader((report / name).open(newline=""))) for name in ("seeds.csv", "cases.csv"))
    assert [(row["method"], row["seed"]) for row in seeds] == [(row.key, "0") for row in rows[:4]]
    assert float(seeds[1]["iou"]) == pytest.approx(rows[1].scores["iou"].mean, abs=1e-6)
    camel = {row["case"]: row for row in cases if row["method"] == "camel"}
    # The tumour of the second image is missed twice as much; a case without tumour has no sensitivity.
    assert float(camel["b"]["sensitivity"]) == pytest.approx(0.8, abs=0.01)
    assert (camel["a"]["sensitivity"], camel["a"]["specificity"]) == ("", "1.0")
    values = case_values(rows[1].draws, 2)
    assert [(one.case, one.has_tumour) for one in values] == [("b", True), ("d", True), ("a", False), ("c", False)]
    assert worst_cases(rows, 2, 1) == ["b"]
    assert "Worst: b 80, d 95, a 100" in (report / "report.html").read_text()


def test_what_was_not_compared_says_why(report):
    text = (report / "report.html").read_text()
    assert "needs label &#39;mask&#39;: 2 of 2 training images" in text
    # Nothing that a method prints becomes part of the page.
    assert "&lt;b&gt;odd&lt;/b&gt;" in text
    assert "Some &lt;data&gt;" in text


def test_tables_for_programs_and_people(report, rows):
    with (report / "table.csv").open(newline="") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    assert list(table) == [row.key for row in rows]
    assert float(table["camel"]["iou"]) == pytest.approx(rows[1].scores["iou"].mean, abs=1e-6)
    assert float(table["camel"]["iou_low"]) <= float(table["camel"]["iou"]) <= float(table["camel"]["iou_high"])
    assert table["cdws_mil"]["published_iou"] == "0.776"
    assert table["colour_only"]["ods"] == ""
    assert float(table["cdws_mil"]["annotation_minutes"]) == pytest.approx((4 * 5 + 2 * 10) / 60, abs=0.01)
    assert (table["joint_seg_cls"]["status"], table["joint_seg_cls"]["iou"]) == ("skipped", "")
    text = (report / "table.md").read_text()
    assert "| CDWS-MIL, published |" in text
    assert "- Joint skipped: needs label 'mask'" in text
    scores, differences = (block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE))
    assert len({line.count("|") for line in scores}) == len({line.count("|") for line in differences}) == 1
    assert "IoU against CAMEL | IoU against Everything is tumour |" in scores[0]
    assert "| CDWS-MIL (over patients only (1 seed); " in scores[2]
    assert "Only 4 test cases: below 20 the intervals are rough. Only 2 of 4 test cases have tumour: " in text
    assert "| CDWS-MIL (over patients only (1 seed)) | -" in differences[2]
    assert "| Everything is tumour (over patients only (1 seed of CAMEL)) | " in differences[3]
    # All that is tumour is found in every draw.
    assert "| Everything is tumour | none | none | - | 100.0 (-) | 0.0 (-) |" in text


def test_the_difference_to_the_reference_stands_beside_the_scores(report, rows):
    tables = [list(csv.DictReader((report / name).open(newline=""))) for name in ("table.csv", "differences.csv")]
    found = {row["method"]: row for row in tables[0]}
    for pair in tables[1]:
        if (pair["reference"], pair["score"]) == ("camel", "iou"):
            row = found[pair["method"]]
            assert (row["reference"], row["difference_score"]) == ("camel", "iou")
            for name, column in (
                ("difference", "difference"),
                ("low", "difference_low"),
                ("high", "difference_high"),
                ("ahead",) * 2,
            ):
                assert row[column] == pair[name] != ""
    assert found["camel"]["difference"] == found["camel"]["ahead"] == found["joint_seg_cls"]["difference"] == ""
    page, text = ((report / name).read_text() for name in ("report.html", "table.md"))
    assert '<th scope="col" data-difference><button type="button">IoU against CAMEL</button></th>' in page
    difference = rows[0].draws.difference(rows[1].draws, "iou")
    shown = f"{100 * difference.low:.1f} to {100 * difference.high:.1f}"
    assert f"{100 * difference.mean:+.1f}<small>{shown}</small><small>ahead in {100 * difference.ahead:.0f} %</small>" in page
    assert f"{100 * difference.mean:+.1f} ({shown}), ahead in {100 * difference.ahead:.0f} %" in text
    assert page.count(">reference</td>") == 1
    (line,) = (line for line in text.splitlines() if line.startswith("| CAMEL (over patients only (1 seed); "))
    assert " | reference | " in line


def test_a_difference_without_an_interval_is_none_of_no_width(report, rows):
    """All that is tumour is found in every draw by one, and the same share of it is missed by the other."""
    text = (report / "table.md").read_text() + (report / "report.html").read_text()
    assert not re.search(r"-0\.0\b|\+0\.0\b", text)
    page = (report / "report.html").read_text()
    cells = re.findall(r"<td[^>]*>([+-]?[\d.]+)(.*?)</td>", page.partition('id="differences"')[2].partition("</section>")[0])
    assert cells
    # Points are followed by an interval and the draws ahead, or by a dash.
    assert all(re.fullmatch(r"<small>(–|\S+ to \S+</small><small>ahead in .+)</small>", rest) for _, rest in cells)
    assert "<small>–</small>" in {rest for _, rest in cells}


@pytest.mark.parametrize(
    ("difference", "shown"),
    [
        (Difference(0.0, -2e-4, 2e-4, 0.6), "0.0 (-)"),
        (Difference(-2e-4, -4e-4, 3e-2, 0.6), "0.0 (0.0 to 3.0), ahead in 60 %"),
        (Difference(0.3, math.nan, math.nan, 1.0), "+30.0 (-)"),
        (Difference(math.nan, math.nan, math.nan, math.nan), "-"),
    ],
)
def test_a_difference_in_words(difference, shown):
    assert difference_text(difference) == shown
    cell = difference_cell(difference)
    ends, ahead = (cell.range.replace("–", "-"), f", {cell.ahead}" if cell.ahead else "") if cell.range else ("", "")
    assert cell.text.replace("–", "-") + (f" ({ends}){ahead}" if ends else "") == shown


def test_the_page_says_what_intervals_are_over(report):
    page = (report / "report.html").read_text()
    assert "seeds. Click" not in page
    assert "interval over patients. Click" in page
    differences = page.partition('id="differences"')[2].partition("</section>")[0]
    # Of two methods and both others to CAMEL, and of three to everything is tumour, which nothing trains.
    assert differences.count("<small>over patients only (1 seed)</small>") == 2 + 3
    assert differences.count("<small>over patients only (1 seed of CAMEL)</small>") == 1


def test_images_without_patients_are_said_to_be_images(rows, scores, data, write):
    """Of all rows, or of some."""
    row = replace(rows[1], seeds=[0, 1], draws=draw([scores, scores], 50), maps=[], mlflow_runs=["", ""])
    for unnamed, over, counted in (
        (4, "images (no case_id)", "4 test images (no case_id)"),
        (1, "patients and images (1 of 4 without case_id)", "4 test cases and images without case_id"),
    ):
        records = [record | {"case_id": None} if index < unnamed else record for index, record in enumerate(data.records)]
        counts = data.counts | {"test": data.counts["test"] | {"unnamed": unnamed}}
        text, page, _ = write([row], replace(data, records=records, counts=counts))
        said = f"Only {counted}: below 20 the intervals are rough."
        for part in (text, page):
            assert f"interval over {over} and seeds" in part
            assert said in part
            assert f"Intervals are over {over}: where several images are of one patient, they are too narrow." in part
            assert "over patients" not in part.replace(over, "")
        assert f"test 4 images of 2 {counted.split(' ', 2)[2]}" in text
        assert f"2 {counted.split(' ', 2)[2]}" in page


@pytest.mark.parametrize(("key", "why"), [("joint_seg_cls", "was skipped"), ("wildcat", "failed"), ("cmil", "has no result")])
def test_a_reference_without_a_result_is_missed(rows, write, caplog, key, why):
    text, page, _ = write(rows, reference=key)
    note = f"The reference {key} {why}: differences are to the best method instead, CAMEL."
    assert note in text
    assert note in page
    # Once, and not of one whose turn may come.
    assert [message for message in caplog.messages if "reference" in message] == ([note] if key != "cmil" else [])


def test_what_a_ceiling_costs_is_unknown(rows, write):
    """All true labels of the test images; nothing is what everything is tumour needs."""
    ceiling = replace(rows[1], key="true_labels", title="Ceiling", effort={}, training_minutes=math.nan)
    text, page, table = write([rows[1], rows[2], ceiling])
    cells = [line.split(" | ") for line in text.partition("Scores in per cent")[0].splitlines()]
    found = {line[0].partition(" (")[0]: line[1:3] for line in cells}
    assert (found["| Ceiling"], found["| Everything is tumour"]) == (["-", "-"], ["none", "none"])
    assert [row["annotation_minutes"] for row in table] == ["0.33", "", ""]
    row = page.partition('data-value="Ceiling"')[2].partition("</tr>")[0]
    assert row.count('<td class="words" data-value="">–</td>') == 2
    effort = page.partition("IoU against annotation</title>")[2].partition("</svg>")[0]
    assert re.findall(r'class="name[^>]*>([^<]*)<', effort) == ["CAMEL", "Everything is tumour"]


def test_differences_are_of_each_two(report, rows):
    with (report / "differences.csv").open(newline="") as file:
        table = {(row["method"], row["reference"], row["score"]): row for row in csv.DictReader(file)}
    one, other = table["cdws_mil", "camel", "iou"], table["camel", "cdws_mil", "iou"]
    assert float(one["difference"]) == pytest.approx(rows[0].scores["iou"].mean - rows[1].scores["iou"].mean, abs=1e-6)
    assert float(one["difference"]) == -float(other["difference"]) < 0
    assert float(one["low"]) < float(one["difference"]) < float(one["high"])
    assert float(one["ahead"]) + float(other["ahead"]) == pytest.approx(1)
    assert len(table) == 4 * 3 * len(score_names(["normal", "tumour"]))


def test_the_reference_that_was_asked_for(data, rows, migrated_database, tmp_path):
    """Or the best one, until it has a result."""
    shutil.copy(migrated_database, tmp_path / "mlruns.db")
    options = {"tracking_uri": f"sqlite:///{tmp_path}/mlruns.db", "mlflow_url": None, "num_examples": 0}
    report = Report(data, 0.5, SECONDS, None, experiment="comparison", reference="cdws_mil", **options)
    for known, title in ((rows[1:], "CAMEL"), (rows, "CDWS-MIL")):
        report.write(tmp_path, known)
        assert f"Differences to {title}, in points" in (tmp_path / "table.md").read_text()


def test_layers_show_truth_and_maps(rows, data):
    found = examples(rows, data, 3)
    assert [example.label for example in found] == ["tumour, case case2", "tumour, case case3", "normal, case case3"]
    assert [panel.title for panel in found[0].panels] == ["Truth", "CDWS-MIL", "CAMEL", "Colour only"]
    truth = _picture(found[0].panels[0].uri)
    mask = np.asarray(Image.open(data.records[1]["mask"]).resize((found[0].width, found[0].height), Image.Resampling.NEAREST))
    assert ((truth[..., 3] == 255) == (mask > 0)).mean() > 0.98
    assert set(np.unique(truth[..., 3])) == {0, 255}


def test_a_map_that_is_gone_has_no_picture(rows, data, tmp_path, caplog):
    """Its scores are kept, and the report is written without the picture."""
    row = next(row for row in rows if row.title == "CAMEL")
    shutil.copytree(row.maps[0], tmp_path / "maps")
    for path in (tmp_path / "maps").glob("*.ome.tif"):
        path.unlink()
    found = examples([replace(one, maps=[tmp_path / "maps"]) if one is row else one for one in rows], data, 1)
    assert [panel.title for panel in found[0].panels] == ["Truth", "CDWS-MIL", "Colour only"]
    assert "CAMEL has no picture in the report: " in caplog.text


def _picture(uri):
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def test_names_in_a_plot_cover_neither_each_other_nor_points():
    places = [(100.0, 100.0), (102.0, 101.0), (430.0, 100.0), (100.0, 250.0), (130.0, 252.0)]
    names = ["CAMEL", "CDWS-MIL", "Fully supervised", "Everything", "B"]
    found = label_places(places, names)
    boxes = [
        (x - 6.3 * len(name) if anchor == "end" else x, y - 11, x if anchor == "end" else x + 6.3 * len(name), y + 4)
        for (x, y, anchor), name in zip(found, names, strict=True)
    ]
    assert not [
        (one, two)
        for one in boxes
        for two in boxes
        if one < two and one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
    ]
    assert found[2][2] == "end"
    for place, name, box in zip(places, names, boxes, strict=True):
        covered = [
            (x, y)
            for x, y in places
            if (x, y) != place and box[0] < x + 6 and x - 6 < box[2] and box[1] < y + 6 and y - 6 < box[3]
        ]
        assert not covered, name
    # Longer than there is room on either side.
    (left,) = label_places([(300.0, 100.0)], ["Joint segmentation and classification (released head, all masks)"])
    assert left[0] - 6.3 * 64 >= 2 - 1e-9
    assert all(box[0] >= 0 and box[2] <= 440 for box in boxes)


def test_a_plot_of_nothing_and_of_one():
    nothing = Interval(math.nan, math.nan, math.nan)
    assert "no numbers" in scatter([Point("a", 1.0, nothing)], "x", "y", "d")
    text = scatter([Point("A <b>", 0.0, Interval(0.5, math.nan, math.nan))], "x", "y", 'say "so"')
    assert "whisker" not in text
    assert "A &lt;b&gt;" in text
    assert 'aria-label="say &quot;so&quot;"' in text
