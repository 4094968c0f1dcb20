"""What stands beside the scores of a method, in the page and in the tables: labels, costs, verdicts, seeds, papers' numbers."""

import re
from dataclasses import replace

import numpy as np
import pytest

from scripts.comparison.rows.method_row import MethodRow
from scripts.comparison.scores.intervals import Interval, draw, score_names
from scripts.declarations.published import published_data

from .conftest import BUNDLES, drawn_of
from .test_report import drawn_less

TITLE = "“everything is tumour”"


def row_of(page, title):
    """The row of a method in the page's table of scores."""
    table = page.partition('<table id="scores">')[2].partition("</table>")[0]
    (found,) = (row for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL) if f'data-value="{title}"' in row)
    return found


def cells_of(text, title):
    """The cells of a method in the first table of Markdown, by the columns' names."""
    first = text.partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines()]
    (found,) = (line for line in lines if line[0] == title or line[0].startswith(f"{title} ("))
    return dict(zip(lines[0], found, strict=True))


def test_labels_to_select_are_an_annotators_too(rows, write):
    """Four labels are learned from; three labels and a mask choose."""
    row = replace(rows[1], selection={"labels": 3, "areas": 0, "masks": 1})
    assert row.whole_effort == {"labels": 7, "areas": 0, "masks": 1}
    text, page, (cells,) = write([row])
    assert re.findall(r'<td class="words" data-value="(\d+)">(.*?)</td>', row_of(page, "CAMEL")) == [
        ("4", "4 labels"),
        ("4", "3 labels, 1 mask"),
    ]
    heads = re.findall(r"<button type=\"button\">(.*?)</button>", page.partition('<table id="scores">')[2])
    assert heads[:3] == ["Method", "Learned from", "Labels to select"]
    found = cells_of(text, "CAMEL")
    assert (found["learned from"], found["labels to select"]) == ("4 labels", "3 labels, 1 mask")
    assert [cells[f"{name}{which}"] for which in ("", "_to_select") for name in ("labels", "areas", "masks")] == [
        "4",
        "0",
        "0",
        "3",
        "0",
        "1",
    ]
    # 7 labels of 5 s, and a mask of 240 s.
    assert cells["annotation_minutes"] == "4.58"
    assert '<td data-value="4.583333333333333">4.6</td>' in row_of(page, "CAMEL")
    assert ">5<" not in page.partition("IoU against annotation</title>")[2].partition("minutes of annotation")[0]


def test_what_is_below_the_floor_is_marked(rows, scores, write):
    many = replace(scores.of([0, 1, 2, 3] * 3), cases=np.array(list("abcdefghijkl")))
    ahead, floor = (replace(row, **drawn_of(many, share)) for row, share in ((rows[1], 0.1), (rows[2], None)))
    ahead = replace(ahead, seeds=[0], title="Ahead")
    below = replace(ahead, key="below", title="Below", draws=drawn_less(floor.draws))
    text, page, cells = write([ahead, below, floor])
    marked = {title: row_of(page, title) for title in ("Ahead", "Below", "Everything is tumour")}
    assert {title: re.match(r'<tr class="(.*?)">', row)[1].split() for title, row in marked.items()} == {
        "Ahead": [],
        "Below": ["below"],
        "Everything is tumour": ["baseline"],
    }
    verdicts = {title: re.findall(r'<small class="verdict">(.*?)</small>', row) for title, row in marked.items()}
    assert verdicts == {
        "Ahead": [f"ahead of {TITLE} in one training; others are unknown"],
        "Below": [f"below {TITLE}"],
        "Everything is tumour": [],
    }
    assert f"; below {TITLE}) |" in text
    assert "--methods" not in text + page
    assert [row["verdict"] for row in cells] == [verdicts["Ahead"][0], verdicts["Below"][0], ""]


def test_what_reads_pixels_and_fails_may_learn_from_features(rows, scores, write):
    many = replace(scores.of([0, 1, 2, 3] * 3), cases=np.array(list("abcdefghijkl")))
    ahead, floor = (replace(row, **drawn_of(many, share)) for row, share in ((rows[1], 0.1), (rows[2], None)))
    ahead = replace(ahead, key="ahead", title="Ahead", on_features="ahead+features")
    below = replace(ahead, key="below", title="Below", on_features="below+features", draws=drawn_less(floor.draws))
    said = "on features: --methods below+features"
    text, page, _ = write([ahead, below, floor])
    assert (text.count("--methods"), page.count("--methods")) == (1, 1)
    assert f"; below {TITLE}; {said}) |" in text
    assert f"<small>{said}</small>" in row_of(page, "Below")
    text, page, _ = write([ahead, below, replace(ahead, key="below+features", title="On features", on_features=""), floor])
    assert "--methods" not in text + page


def test_each_seed_has_its_row_on_the_page(rows, scores, write):
    """The tumour that the second training misses is half of it; of one training there is nothing to list."""
    tp, fp, fn, tn = scores.counts.T
    worse = replace(scores, counts=np.stack([tp - tp // 2, fp, fn + tp // 2, tn], 1))
    drawn = draw([scores, worse], 200)
    two = replace(rows[1], seeds=[3, 5], draws=drawn, scores={name: drawn.interval(name) for name in drawn.trainings}, maps=[])
    two.mlflow_runs = ["", ""]
    _, page, _ = write([two, rows[0]])
    table = page.partition('<details id="seeds">')[2].partition("</details>")[0]
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
    assert [row[:2] for row in found] == [["Method", "Seed"], ["CAMEL", "3"], ["CAMEL", "5"]]
    sensitivity = found[0].index("Sensitivity")
    values = [f"{100 * share:.1f}" for share in drawn.trainings["sensitivity"]]
    assert [row[sensitivity] for row in found[1:]] == values
    assert values[0] != values[1]
    assert '<details id="seeds">' not in write([rows[0]])[1]


def test_the_gallery_names_the_worst_cases(rows, scores, data, write):
    """The case whose tumour is missed most is shown, whether or not its image is among the examples."""
    cases = np.array([record["case_id"] for record in data.records])
    drawn = drawn_of(replace(scores, cases=cases), 0.1)
    row = replace(rows[1], **drawn)
    _, page, _ = write([row], num_examples=1)
    titles = re.findall(r"<h3>(\S+) <span>(.*?)</span></h3>", page.partition('id="gallery"')[2])
    assert {label for _, label in titles if "among the worst cases" in label} == {
        f"tumour, case {case}, among the worst cases" for case in ("case2", "case3")
    }
    assert "among the worst cases" not in write([row], num_examples=0)[1]


def test_memory_of_gpus_where_one_was_used(rows, write):
    one, other = replace(rows[1], gpu_bytes=3 * 2**30), rows[0]
    text, page, cells = write([one, other])
    assert (cells_of(text, "CAMEL")["GPU, GiB"], cells_of(text, "CDWS-MIL")["GPU, GiB"]) == ("3.0", "-")
    assert '<button type="button">Peak GPU memory, GiB</button>' in page
    assert "GPU memory the increase over what was in use before" in page
    for title, shown in (("CAMEL", '<td data-value="3.0">3.0</td>'), ("CDWS-MIL", '<td data-value="">–</td>')):
        assert row_of(page, title).rstrip().removesuffix("</tr>").rstrip().endswith(shown)
    assert [row["gpu_gib"] for row in cells] == ["3.0", ""]
    text, page, _ = write([other])
    assert "GPU" not in text
    assert "GPU memory" not in page


@pytest.mark.parametrize(
    ("mpp", "overlays", "shown", "cell"),
    [
        (0.25, ["ebhi_seg", "unet"], "0.25 µm per pixel, ebhi_seg, unet", "0.25, ebhi_seg, unet"),
        (8.0, [], "8 µm per pixel", "8"),
        (None, [], None, "-"),
    ],
)
def test_what_a_method_reads(rows, write, mpp, overlays, shown, cell):
    text, page, (cells,) = write([replace(rows[1], mpp=mpp, overlays=overlays)])
    found = re.findall(r"<small>(.*?µm per pixel.*?)</small>", row_of(page, "CAMEL"))
    assert found == ([] if shown is None else [shown])
    assert cells_of(text, "CAMEL")["um per pixel, overlays"] == cell
    assert (cells["mpp"], cells["overlays"]) == ("" if mpp is None else str(mpp), " ".join(overlays))


def test_one_of_anything_is_one(rows, data, write):
    one = {"rows": 1, "tumour": 1, "masks": 1, "areas": 0, "cases": 1, "unnamed": 0}
    text, page, _ = write([rows[1]], replace(data, counts={"train": one}, records=data.records[:1]))
    assert "train 1 image of 1 case; 1 test image with a mask or label 0 scored" in text
    assert re.search(r'1 image, 1 with tumour<br><span class="soft">1 case,\s+1 mask, 0 areas</span>', page)
    assert "Scores are of 1 test image, those with a mask or label 0." in page


def test_numbers_of_bach_say_of_which_split_and_mean_they_are(data, write):
    """They are means of slides, of trainings on three of them: so stand beside means of cases, never beside pooled scores."""
    names = ("normal", "benign", "in situ", "invasive")
    published = published_data(BUNDLES)["bach"]
    config = dict(published.rows[0].settings)
    row = MethodRow("joint_seg_cls+bach+s", "Joint", seeds=[0], mlflow_runs=[""], config=config)
    row.scores = {name: Interval(0.5, 0.4, 0.6) for name in score_names(names, ordered=True)}
    of_slides = replace(data, is_slides=True, class_names=names)
    text, page, (cells,) = write([row], of_slides, published=published, ordered=True)
    split = "means of slides, of networks that were trained on slides A01 to A03"
    assert split in text
    assert split in page
    (line,) = (line for line in text.splitlines() if line.startswith("| Joint, published |"))
    heads = [head.strip() for head in text.splitlines()[0].strip("|").split("|")]
    shown = {head: cell.strip() for head, cell in zip(heads, line.strip("|").split("|"), strict=True) if cell.strip()}
    assert shown == {"method": "Joint, published", "BACH score, mean of cases": "30.9"}
    assert re.findall(r'<small class="paper">(.*?)</small>', row_of(page, "Joint")) == ["30.9"]
    assert {name for name in cells if name.startswith("published_")} == {"published_bach_score_of_cases"}
