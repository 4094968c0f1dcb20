"""Records of TCGA slides from the GDC's tables and from folders, and what does not fit together."""

import pytest

from shared.data.public.tcga import read_gdc_table, tcga_records
from tests.data.tcga_layout import SHEET, sheet_row, slide, touch, write_gdc_manifest, write_sheet, write_table


def test_reads_both_tables(tmp_path):
    (row,) = read_gdc_table(write_gdc_manifest(tmp_path, [slide(1)]))
    assert (row.row, row.file_id, row.file_name, row.project_id, row.case_id) == (2, "id0", slide(1), "", "")
    (row,) = read_gdc_table(write_sheet(tmp_path, [sheet_row(slide(1), "TCGA-OV")]))
    assert (row.file_name, row.project_id, row.sample_id) == (slide(1), "TCGA-OV", "TCGA-AB-0001-01A")
    assert row.sample_type == "Primary Tumor"


def test_reads_sheets_with_newer_columns(tmp_path):
    header = [*SHEET[:-1], "Tissue Type", "Tumor Descriptor", "Specimen Type", "Preservation Method"]
    row = [*sheet_row(slide(1))[:-1], "Tumor", "Primary", "Solid Tissue", "OCT"]
    (row,) = read_gdc_table(write_table(tmp_path / "sheet.tsv", header, [row]))
    assert (row.sample_type, row.tissue_type) == ("", "Tumor")


def test_rows_are_numbered_as_lines(tmp_path):
    path = tmp_path / "manifest.txt"
    path.write_text(f"\ufeffid\tfilename\r\n\r\na\t{slide(1)}\r\n\t\r\nb\t{slide(2)}\r\n", encoding="utf-8")
    assert [(row.row, row.file_id) for row in read_gdc_table(path)] == [(3, "a"), (5, "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its columns are: none"),
        ("id,filename\na,b.svs\n", "its columns are: id,filename"),
        ("id\tfile_name\na\tb\n", "its columns are: id, file_name"),
        ("id\tfilename\tmd5\na\tb\tc\nd\te\n", "row 3: 2 cells under a header of 3: is the file complete\\? Cells: d, e"),
        ("id\tfilename\na\tb\td\n", "row 2: 3 cells under a header of 2"),
        ("id\tfilename\n\tb\n", "row 2: the id or the name of the file is empty; cells: , b"),
        ("id\tfilename\tFile Name\na\tb\tb\n", "has the columns filename, File Name: keep one"),
        ('id\tfilename\na\t"b\n', "not a readable table"),
    ],
)
def test_rejects_other_tables(text, message, tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"table\.tsv.*{message}"):
        read_gdc_table(path)


def test_rejects_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none\.tsv does not exist"):
        read_gdc_table(tmp_path / "none.tsv")


def test_a_folder_of_slides(tmp_path):
    names = ["TCGA-AB-0001-01A-01-TS1.svs", "id/tcga-ab-0002-11a-01-ts1.SVS", f"a/b/{slide(3, '06')}"]
    touch(tmp_path, *names, "CMU-1.svs", "id/logs/TCGA-AB-0002-11A-01-TS1.svs.parcel", "TCGA-AB-0004-01A-01-TS1.txt")
    records, missing = tcga_records(slides=tmp_path)
    assert {record["image"]: (record["case_id"], record["label"]) for record in records} == {
        str(tmp_path / names[0]): ("TCGA-AB-0001", 1),
        str(tmp_path / names[1]): ("TCGA-AB-0002", 0),
        str(tmp_path / names[2]): ("TCGA-AB-0003", 1),
    }
    assert {record["group"] for record in records} == {"in_distribution"}
    assert {record["location"] for record in records} == {None}
    assert missing == []


def test_a_table_alone_names_the_files_as_they_will_be_downloaded(tmp_path):
    records, _ = tcga_records(write_gdc_manifest(tmp_path, [slide(1), slide(2)]))
    assert [record["image"] for record in records] == [f"id0/{slide(1)}", f"id1/{slide(2)}"]


def test_finds_the_files_of_a_table(tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1), slide(2), slide(3)])
    folder = tmp_path / "slides"
    # Of gdc-client, flat and in lower case, in a folder of one's own; the last is not in the table.
    touch(folder, f"id0/{slide(1)}", slide(2).lower(), f"kidney/{slide(3)}", slide(4))
    records, _ = tcga_records(table, folder)
    expected = [f"id0/{slide(1)}", slide(2).lower(), f"kidney/{slide(3)}"]
    assert [record["image"] for record in records] == [str(folder / name) for name in expected]


def test_prefers_the_folder_of_the_id(tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1)])
    folder = touch(tmp_path / "slides", f"a/{slide(1)}", f"id0/{slide(1)}")
    (record,), _ = tcga_records(table, folder)
    assert record["image"] == str(folder / "id0" / slide(1))


def test_rejects_copies_of_which_none_is_the_id_s(tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1)])
    folder = touch(tmp_path / "slides", f"a/{slide(1)}", f"b/{slide(1)}")
    with pytest.raises(ValueError, match=rf"gdc_manifest\.txt, row 2: .* exists twice, as {folder}/a/.* and {folder}/b/"):
        tcga_records(table, folder)


def test_missing_files_are_an_error_or_left_out(tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(case) for case in range(6)])
    folder = touch(tmp_path / "slides", slide(0), slide(2))
    first = ", ".join(slide(case) for case in (1, 3, 4))
    with pytest.raises(
        ValueError, match=rf"gdc_manifest\.txt, row 3: {first}, \.\.\. not found in .*: 4 of 6 slides are missing"
    ):
        tcga_records(table, folder)
    records, missing = tcga_records(table, folder, allow_missing=True)
    assert [record["case_id"] for record in records] == ["TCGA-AB-0000", "TCGA-AB-0002"]
    assert missing == [slide(case) for case in (1, 3, 4, 5)]


def test_every_file_missing_is_an_error_even_if_allowed(tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1)])
    with pytest.raises(ValueError, match=r"gdc_manifest\.txt: no TCGA slide is in .*, where 1 are missing"):
        tcga_records(table, touch(tmp_path / "slides", slide(2)), allow_missing=True)


@pytest.mark.parametrize(
    ("section", "codes"), [("frozen", ["TS1", "BSA"]), ("diagnostic", ["DX1"]), ("all", ["TS1", "BSA", "DX1"])]
)
def test_sections_of_a_table(section, codes, tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1, section=code) for code in ("TS1", "BSA", "DX1")])
    # What is not wanted need not be there.
    folder = touch(tmp_path / "slides", *(slide(1, section=code) for code in codes))
    records, _ = tcga_records(table, folder, section=section)
    assert [record["image"] for record in records] == [str(folder / slide(1, section=code)) for code in codes]


def test_rejects_an_unknown_section(tmp_path):
    with pytest.raises(ValueError, match="one of all, frozen, diagnostic; got 'paraffin'"):
        tcga_records(slides=tmp_path, section="paraffin")


def test_a_section_without_slides_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no TCGA slide with section diagnostic"):
        tcga_records(slides=touch(tmp_path, slide(1)), section="diagnostic")


def test_rejects_a_folder_without_slides_and_none(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: no TCGA slide"):
        tcga_records(slides=tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}/none does not exist"):
        tcga_records(slides=tmp_path / "none")
    with pytest.raises(ValueError, match="need a folder of slides, a GDC table, or both"):
        tcga_records()


@pytest.mark.parametrize("second", [slide(1), slide(1).replace("9F0E", "0000"), slide(1).lower()])
def test_rejects_a_slide_in_two_rows(second, tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1), slide(2), second])
    message = r"gdc_manifest\.txt, row 4: slide TCGA-AB-0001-01A-01-TS1 occurs twice, first as .*gdc_manifest\.txt, row 2"
    with pytest.raises(ValueError, match=message):
        tcga_records(table)


def test_rejects_a_slide_in_two_files(tmp_path):
    touch(tmp_path, f"a/{slide(1)}", "b/tcga-ab-0001-01a-01-ts1.svs")
    with pytest.raises(ValueError, match=f"{tmp_path}/b/.*: slide TCGA-AB-0001-01A-01-TS1 occurs twice, first as {tmp_path}/a/"):
        tcga_records(slides=tmp_path)


def test_unknown_codes_and_names_are_errors_that_name_the_place(tmp_path):
    table = write_gdc_manifest(tmp_path, [slide(1), slide(2, code="20")])
    with pytest.raises(ValueError, match=r"gdc_manifest\.txt, row 3: sample-type code 20 of"):
        tcga_records(table)
    with pytest.raises(ValueError, match=r"gdc_manifest\.txt, row 2: 'reads\.bam' is not the name"):
        tcga_records(write_gdc_manifest(tmp_path, ["reads.bam"]))
    folder = touch(tmp_path / "slides", slide(2, code="20"))
    with pytest.raises(ValueError, match=f"{folder / slide(2, code='20')}: sample-type code 20 of"):
        tcga_records(slides=folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"case_id": "TCGA-AB-0009"}, "case TCGA-AB-0009 contradicts the barcode .*, which says TCGA-AB-0001"),
        ({"sample_id": "TCGA-AB-0001-11A"}, "sample TCGA-AB-0001-11A contradicts .*, which says TCGA-AB-0001-01A"),
        ({"sample_id": "TCGA-AB-0001-01A, TCGA-AB-0001-11A"}, "sample .* contradicts"),
        (
            {"sample_type": "Solid Tissue Normal"},
            "'Solid Tissue Normal' contradicts the barcode .*, in which code 01 means tumour",
        ),
        ({"project_id": "CPTAC-3"}, "'CPTAC-3' is not one of the 33 TCGA projects"),
        ({"project_id": ""}, "the project is empty here, but not in other rows"),
    ],
)
def test_rejects_a_sheet_that_contradicts_the_barcode(changed, message, tmp_path):
    table = write_sheet(tmp_path, [sheet_row(slide(2)), sheet_row(slide(1), **changed)])
    with pytest.raises(ValueError, match=rf"gdc_sample_sheet\.tsv, row 3: {message}"):
        tcga_records(table)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("01", "Primary Tumor"),
        ("02", "Recurrent Tumor"),
        ("05", "Additional - New Primary"),
        ("06", "Metastatic"),
        ("11", "Solid Tissue Normal"),
        ("01", "Unknown"),
        ("11", "Not Reported"),
        ("01", ""),
        ("01", "Abnormal"),
    ],
)
def test_accepts_a_sheet_that_agrees(code, kind, tmp_path):
    twice = {"case_id": "TCGA-AB-0001, TCGA-AB-0001", "sample_type": kind}
    (record,), _ = tcga_records(write_sheet(tmp_path, [sheet_row(slide(1, code), **twice)]))
    assert record["label"] == (code != "11")


@pytest.mark.parametrize(("code", "kind"), [("11", "Tumor"), ("01", "Normal"), ("11", "Primary Tumor"), ("12", "Metastatic")])
def test_rejects_a_tissue_type_of_the_other_label(code, kind, tmp_path):
    header = [*SHEET[:-1], "Tissue Type"]
    table = write_table(tmp_path / "sheet.tsv", header, [sheet_row(slide(1, code), sample_type=kind)])
    with pytest.raises(ValueError, match=f"row 2: {kind!r} contradicts the barcode .* in which code {code} means"):
        tcga_records(table)
