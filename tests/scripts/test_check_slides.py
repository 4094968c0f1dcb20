"""`check_slides.py` as a user starts it, on real files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from shared.data import load_manifest
from shared.synthetic import write_slide


def write_magnified(path: Path, magnification: int) -> None:
    """A slide that states the magnification of its objective, and no pixel size."""
    text = f"Aperio Image Library v11.2.1\n512x512 [0,0 512x512] (256x256) JPEG/RGB Q=70|AppMag = {magnification}"
    pixels = np.full((512, 512, 3), 200, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", description=text, metadata=None)


@pytest.fixture
def slides(tmp_path):
    """Folder of slides: sound ones, one with a magnification alone, and a damaged one."""
    folder = tmp_path / "my"
    (folder / "slides").mkdir(parents=True)
    for number in range(6):
        write_slide(folder / f"slides/{number}.tif", np.full((64, 64, 3), 200 + number, np.uint8), mpp=0.5)
    write_magnified(folder / "slides/magnified.svs", 40)
    (folder / "slides/damaged.tif").write_bytes(b"II*\0" + bytes(100))
    Image.new("L", (64, 64), 255).save(folder / "0.png")
    return folder


@pytest.fixture
def check(run_script):
    """Run the command: its exit status or message, what it printed, and problems.csv as (row, begin of the problem)."""

    def run(manifest, out, *options):
        status, printed = run_script("check_slides.py", "--manifest", manifest, "--out", out, *options)
        table = pd.read_csv(out / "problems.csv") if (out / "problems.csv").is_file() else None
        return status, printed, [] if table is None else list(zip(table["row"], table["problem"], strict=True))

    return run


def test_the_checked_manifest_is_the_given_one_without_unusable_rows(slides, tmp_path, check):
    """Columns that nobody here knows stay, no split is drawn, and pixel sizes come where there were none."""
    (slides / "manifest.csv").write_text(
        "Scanner no.,image,label,stain,mask,case_id,,stain\n"
        'a1,slides/0.tif,1,"H&E, fresh",0.png,p0,,x\n'
        "\n"
        f"a2,{slides}/slides/1.tif,1.0,,,007,,\n"
        "a3,slides/damaged.tif,0,,,p9,,\n"
        "a4,slides/magnified.svs,0,,,p3\n"
        + "".join(f"b,slides/{number}.tif,{number % 2},,,p{number},,\n" for number in range(2, 6))
    )
    status, printed, problems = check(slides / "manifest.csv", tmp_path / "checked", "--skip", "--app_mag")
    assert status == "0"
    assert "7 of 8 rows are usable" in printed
    assert [row for row, _ in problems] == [5]
    checked = tmp_path / "checked/slides.csv"
    assert checked.read_text() == (
        "Scanner no.,image,label,stain,mask,case_id,,stain,mpp\n"
        f'a1,{slides}/slides/0.tif,1,"H&E, fresh",{slides}/0.png,p0,,x,\n'
        f"a2,{slides}/slides/1.tif,1.0,,,007,,,\n"
        f"a4,{slides}/slides/magnified.svs,0,,,p3,,,0.25\n"
        + "".join(f"b,{slides}/slides/{number}.tif,{number % 2},,,p{number},,,\n" for number in range(2, 6))
    )
    # Every usable case is tested in one fold, and the seed decides the splits.
    tested = [record["case_id"] for fold in range(3) for record in load_manifest(checked, "test", num_folds=3, fold=fold)]
    assert sorted(tested) == ["007", "p0", "p2", "p3", "p3", "p4", "p5"]
    drawn = {tuple(record["split"] for record in load_manifest(checked, split_seed=seed)) for seed in range(4)}
    assert len(drawn) > 1


def test_cells_stay_as_they_are_in_the_manifests_own_folder(slides, check):
    """So do relative paths, splits, and the pixel sizes that are there."""
    (slides / "manifest.csv").write_text(
        "split,mpp,image_name,label\ntrain,0.50,slides/0.tif,0\ntest,,slides/magnified.svs,1\nval,,slides/damaged.tif,1\n"
    )
    assert check(slides / "manifest.csv", slides, "--skip", "--app_mag")[0] == "0"
    assert (slides / "slides.csv").read_text() == (
        "split,mpp,image_name,label\ntrain,0.50,slides/0.tif,0\ntest,0.25,slides/magnified.svs,1\n"
    )


def test_a_manifest_is_not_replaced_by_its_usable_rows(slides, check):
    (slides / "slides.csv").write_text("image\nslides/0.tif\nslides/damaged.tif\n")
    status, printed, _ = check(slides / "slides.csv", slides, "--skip")
    assert (status, printed) == ("2", "")
    assert (slides / "slides.csv").read_text() == "image\nslides/0.tif\nslides/damaged.tif\n"


def test_every_row_is_checked_also_of_regions_in_micrometres(slides, tmp_path, check):
    rows = [
        "slides/damaged.tif,0,0,8,4,,1",
        "slides/missing.tif,0,0,8,4,,1",
        "slides/magnified.svs,0,0,8,4,,1",
        "slides/0.tif,0,0,0.2,4,,1",
        "slides/1.tif,0,0,8,,,1",
        "slides/2.tif,0,0,8,4,nm,1",
        "0.png,0,0,8,4,,1",
        "slides/3.tif,2,6,8,4,,0",
        "slides/4.tif,2,6,8,4,0.25,1",
    ]
    manifest = slides / "manifest.csv"
    manifest.write_text("image,x,y,width_um,height_um,mpp,label\n" + "".join(f"{row}\n" for row in rows))
    status, printed, problems = check(manifest, tmp_path / "checked")
    assert status == "1"
    assert "2 of 9 rows are usable" in printed
    begins = {
        2: "cannot be read",
        3: "it cannot be opened: No such file or directory",
        4: "only an objective magnification of 40",
        5: "the region is smaller than a pixel: 0 x 8 px",
        6: "width_um and height_um must both be given",
        7: "mpp must be a number, got 'nm'",
        8: "its region is in micrometres, and it does not state its pixel size",
    }
    assert [row for row, _ in problems] == list(begins)
    assert all(begins[row] in problem for row, problem in problems)
    assert not (tmp_path / "checked/slides.csv").exists()
    assert check(manifest, tmp_path / "checked", "--skip", "--app_mag")[0] == "0"
    records = load_manifest(tmp_path / "checked/slides.csv")
    names = ("x", "y", "width_px", "height_px")
    found = {Path(record["image"]).name: [record[name] for name in names] for record in records}
    assert found == {"magnified.svs": [0, 0, 32, 16], "3.tif": [2, 6, 16, 8], "4.tif": [2, 6, 32, 16]}


@pytest.mark.parametrize(
    ("columns", "original", "copy", "problem"),
    [
        (
            "label,split",
            "1,train",
            "1,test",
            "one slide is in the splits train and test",
        ),
        ("label,split", "1,train", "1,train", None),
        (
            "label,case_id",
            "1,p0",
            "1,p7",
            "two splits may be drawn with one slide in both",
        ),
        ("label", "1", "1", "two splits may be drawn with one slide in both"),
        ("label,case_id", "1,p0", "1,p0", None),
        # Slides to map.
        ("group", "a", "b", None),
    ],
)
def test_a_copy_of_a_slide_is_no_slide_of_another_split(slides, tmp_path, check, caplog, columns, original, copy, problem):
    """Whatever its name; a second look finds it too. Other copies are named in a warning."""
    (slides / "slides/copy.tif").write_bytes((slides / "slides/0.tif").read_bytes())
    manifest = slides / "manifest.csv"
    manifest.write_text(f"image,{columns}\nslides/0.tif,{original}\nslides/copy.tif,{copy}\nslides/1.tif,{original}\n")
    for _ in range(2):
        caplog.clear()
        status, _, problems = check(manifest, tmp_path / "checked")
        found = f"it has the same content as {slides}/slides/0.tif (row 2): {problem}, which makes the test meaningless; keep one"
        assert (status, problems) == (("0", []) if problem is None else ("1", [(3, found)]))
        named = f"1 images have the same content as others and count twice; keep one of each: {slides}/slides/copy.tif (of "
        assert (named in caplog.text) == (problem is None)
    assert check(manifest, tmp_path / "checked", "--skip")[0] == "0"
    assert ("copy.tif" in (tmp_path / "checked/slides.csv").read_text()) == (problem is None)


def test_a_region_that_stands_twice_in_different_units_is_named_after_the_problems(slides, tmp_path, check):
    manifest = slides / "manifest.csv"
    manifest.write_text(
        "image,x,y,width_um,height_um,width_px,height_px\nslides/0.tif,0,0,8,4,,\nslides/damaged.tif,0,0,8,4,,\n"
        "slides/0.tif,0,0,,,16,8\n"
    )
    status, _, problems = check(manifest, tmp_path / "checked", "--skip")
    assert status == "2"
    assert [row for row, _ in problems] == [3]
    assert not (tmp_path / "checked/slides.csv").exists()
