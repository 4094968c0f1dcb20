"""`prepare.py tcga` as a user starts it."""

import csv
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shared.data import load_manifest
from shared.data.public.tcga import tcga_records

from .conftest import PREPARE, Prepare

SHEET = "File ID\tFile Name\tData Category\tData Type\tProject ID\tCase ID\tSample ID\tSample Type\n"


@pytest.fixture
def run_here(prepare: Prepare) -> Prepare:
    return functools.partial(prepare, "tcga")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_sheet(path: Path, slides: dict[str, str]) -> Path:
    """A sample sheet of slides and their projects; the id of a file is its barcode's case."""
    rows = [f"{name[:12]}\t{name}\tBiospecimen\tSlide Image\t{slides[name]}\t{name[:12]}\t{name[:16]}\t\n" for name in slides]
    path.write_text(SHEET + "".join(rows), encoding="utf-8")
    return path


def test_a_sheet_and_a_folder(tmp_path: Path, run_here: Prepare, run_python: Callable[..., CompletedProcess[str]]) -> None:
    kidney = {f"TCGA-AB-{case:04}-{code}A-01-TS1.svs": "TCGA-KIRC" for case in range(20) for code in ("01", "11")}
    colon = {f"TCGA-CD-{case:04}-01A-01-TS1.svs": "TCGA-COAD" for case in range(5)}
    diagnostic = {"TCGA-AB-0000-01Z-00-DX1.svs": "TCGA-KIRC"}
    sheet = write_sheet(tmp_path / "sheet.tsv", kidney | colon | diagnostic)
    for name in kidney | colon:
        (tmp_path / "slides" / name[:12]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "slides" / name[:12] / name).touch()
    arguments = (tmp_path / "tcga.csv", "--slides", tmp_path / "slides", "--table", sheet)
    assert "row 47: TCGA-AB-0000-01Z-00-DX1.svs not found" in run_here(*arguments)[0]
    assert not (tmp_path / "tcga.csv").exists()

    error, printed = run_here(*arguments, "--allow_missing")
    assert error == ""
    assert "1 of its slides were left out" in printed
    whole = (tmp_path / "tcga.csv").read_bytes()
    finished = run_python(PREPARE, "tcga", *arguments, "--section", "frozen")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "tcga.csv").read_bytes() == whole

    assert "45 slides of 25 cases" in finished.stdout
    assert (
        "  colon: 5 slides of 5 cases\n  kidney: 40 slides of 20 cases (2334 frozen sections in the paper)\n" in finished.stdout
    )
    # 65, 15 and 20 % of 20 cases of two slides.
    for split, count in (("train", 13), ("val", 3), ("test", 4)):
        for label in ("tumour", "normal"):
            assert f"in_distribution {split}, {label}: {count} slides of {count} cases" in finished.stdout
    assert "out_of_location test, tumour: 5 slides of 5 cases" in finished.stdout
    assert "out_of_location test, normal" not in finished.stdout
    warnings = [line for line in finished.stderr.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: out_of_location test has no normal slide: without it there is no AUC over its slides"]
    records = load_manifest(tmp_path / "tcga.csv", both_classes=True)
    assert Counter(record["split"] for record in records) == {"train": 26, "val": 6, "test": 8 + 5}
    assert Counter(record["group"] for record in records) == {"in_distribution": 40, "out_of_location": 5}
    rows = rows_of(tmp_path / "tcga.csv")
    assert list(rows[0]) == ["image", "label", "case_id", "split", "group", "location"]
    assert Counter((row["location"], row["group"]) for row in rows) == {
        ("kidney", "in_distribution"): 40,
        ("colon", "out_of_location"): 5,
    }


def test_a_manifest_written_before_the_download_fits_afterwards(tmp_path: Path, run_here: Prepare) -> None:
    names = [f"TCGA-AB-{case:04}-{code}A-01-BSA.svs" for case in range(3) for code in ("01", "11")]
    table = tmp_path / "gdc_manifest.txt"
    table.write_text("id\tfilename\tmd5\tsize\tstate\n" + "".join(f"i{name}\t{name}\t0\t1\treleased\n" for name in names))
    assert run_here(tmp_path / "tcga.csv", "--table", table)[0] == ""
    for name in names:
        (tmp_path / f"i{name}").mkdir()
        (tmp_path / f"i{name}" / name).touch()
    assert [Path(record["image"]).name for record in load_manifest(tmp_path / "tcga.csv")] == names
    assert list(rows_of(tmp_path / "tcga.csv")[0]) == ["image", "label", "case_id", "split", "group"]


def test_training_locations_with_spaces_and_seed(tmp_path: Path, run_here: Prepare) -> None:
    slides = {f"TCGA-AB-{case:04}-01A-01-TS1.svs": "TCGA-UCEC" for case in range(20)} | {
        f"TCGA-CD-{case:04}-01A-01-TS1.svs": "TCGA-KIRC" for case in range(20)
    }
    sheet = write_sheet(tmp_path / "sheet.tsv", slides)
    assert (
        run_here(tmp_path / "tcga.csv", "--table", sheet, "--seed", 1, "--training_locations", "corpus uteri", "colon")[0] == ""
    )
    rows = rows_of(tmp_path / "tcga.csv")
    groups = {(row["location"], row["group"]) for row in rows}
    assert groups == {("corpus uteri", "in_distribution"), ("kidney", "out_of_location")}
    expected, _ = tcga_records(sheet, training_locations=["corpus uteri"], seed=1)
    assert [row["split"] for row in rows] == [record["split"] for record in expected]
    assert expected != tcga_records(sheet, training_locations=["corpus uteri"], seed=0)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--slides", "none"], "the folder of slides none does not exist"), (["--table", "{}"], "{}, row 2: sample-type code 20")],
)
def test_says_what_is_wrong(options: list[str], message: str, tmp_path: Path, run_here: Prepare) -> None:
    sheet = write_sheet(tmp_path / "sheet.tsv", {"TCGA-AB-0001-20A-01-TS1.svs": "TCGA-KIRC"})
    error, _ = run_here(tmp_path / "tcga.csv", *(option.format(sheet) for option in options))
    assert error.startswith(f"error: {message.format(sheet)}")
    assert not (tmp_path / "tcga.csv").exists()


def test_a_real_slide(wsi_test_data: Path, tmp_path: Path, run_here: Prepare) -> None:
    assert run_here(tmp_path / "tcga.csv", "--slides", wsi_test_data / "slides")[0] == ""
    (record,) = load_manifest(tmp_path / "tcga.csv")
    assert Path(record["image"]).name == "tcga-cr-7395-01a-01-ts1.svs"
    assert (record["label"], record["case_id"], record["split"]) == (1, "TCGA-CR-7395", "train")

    sheet = write_sheet(tmp_path / "sheet.tsv", {"TCGA-CR-7395-01A-01-TS1.svs": "TCGA-HNSC"})
    assert run_here(tmp_path / "tcga.csv", "--slides", wsi_test_data / "slides", "--table", sheet)[0] == ""
    (row,) = rows_of(tmp_path / "tcga.csv")
    assert (row["location"], row["group"], row["split"]) == ("head and neck", "out_of_location", "test")
