"""Locations and splits of TCGA slides."""

import random
from collections import Counter

import pytest

from shared.data.public.tcga import tcga_records
from shared.data.splits import SPLITS
from tests.data.tcga_layout import sheet_of_projects, sheet_row, slide, touch, write_gdc_manifest, write_sheet


def test_other_locations_are_tested_only(tmp_path):
    projects = dict.fromkeys(["TCGA-KIRC", "TCGA-LUSC", "TCGA-BRCA", "TCGA-COAD", "TCGA-OV", "TCGA-UCEC"], 100)
    records, _ = tcga_records(sheet_of_projects(tmp_path, projects))
    counts = Counter((record["location"], record["group"], record["split"]) for record in records)
    expected = {(location, "out_of_location", "test"): 100 for location in ("colon", "ovary", "corpus uteri")}
    for location in ("kidney", "bronchus and lung", "breast"):
        expected |= {(location, "in_distribution", split): count for split, count in zip(SPLITS, (65, 15, 20), strict=True)}
    assert counts == expected


def test_training_locations_can_be_chosen(tmp_path):
    table = sheet_of_projects(tmp_path, {"TCGA-COAD": 20, "TCGA-KIRP": 20})
    records, _ = tcga_records(table, training_locations=["colon"])
    groups = {(record["location"], record["group"]) for record in records}
    assert groups == {("colon", "in_distribution"), ("kidney", "out_of_location")}
    assert {record["split"] for record in records if record["location"] == "kidney"} == {"test"}


@pytest.mark.parametrize("locations", [["lung"], [], ["kidney", "Breast"]])
def test_rejects_unknown_training_locations(locations, tmp_path):
    with pytest.raises(ValueError, match=r"training locations must be some of adrenal gland, .*; got \["):
        tcga_records(sheet_of_projects(tmp_path, {"TCGA-KIRC": 1}), training_locations=locations)


def test_training_locations_need_a_sheet(tmp_path):
    with pytest.raises(ValueError, match="names no project"):
        tcga_records(write_gdc_manifest(tmp_path, [slide(1)]), training_locations=["kidney"])


def test_projects_of_one_organ_are_one_location(tmp_path):
    records, _ = tcga_records(sheet_of_projects(tmp_path, {"TCGA-KIRC": 7, "TCGA-KIRP": 7, "TCGA-KICH": 6}))
    # 20 cases of one stratum: 13, 3, 4. Three strata of 7, 7 and 6 would give other counts.
    assert Counter(record["split"] for record in records) == {"train": 13, "val": 3, "test": 4}


def test_rejects_a_case_in_two_locations(tmp_path):
    rows = [sheet_row(slide(1)), sheet_row(slide(1, section="BS1"), "TCGA-COAD")]
    with pytest.raises(ValueError, match=r"row 3: case TCGA-AB-0001 has location 'colon' here and 'kidney' in .*row 2"):
        tcga_records(write_sheet(tmp_path, rows))


def test_a_case_stays_whole_with_tumour_and_normal_slides(tmp_path):
    names = [slide(case, code, section) for case in range(40) for code in ("01", "11") for section in ("TS1", "BS1")]
    names += [slide(case, "11") for case in range(40, 60)]
    records, _ = tcga_records(write_gdc_manifest(tmp_path, names))
    assert len({(record["case_id"], record["split"]) for record in records}) == 60
    # Cases with both (26, 6, 8 of 40) and with normal slides alone (13, 3, 4 of 20) are dealt out apart.
    cases = {record["case_id"]: record["split"] for record in records}
    assert Counter(cases.values()) == {"train": 39, "val": 9, "test": 12}


@pytest.mark.parametrize("seed", range(5))
def test_normal_slides_of_tumour_cases_are_in_every_split(seed, tmp_path):
    """As in TCGA: every case has a tumour slide, few a normal one too."""
    names = [slide(case) for case in range(60)] + [slide(case, "11") for case in range(20)]
    records, _ = tcga_records(write_gdc_manifest(tmp_path, names), seed=seed)
    normal = Counter(record["split"] for record in records if record["label"] == 0)
    assert normal == {"train": 13, "val": 3, "test": 4}
    # The same cases' tumour slides, and 65, 15 and 20 % of the 40 others.
    assert Counter(record["split"] for record in records if record["label"]) == {"train": 13 + 26, "val": 3 + 6, "test": 4 + 8}


def test_the_split_follows_from_seed_and_cases_alone(tmp_path):
    names = [slide(case, code) for case in range(30) for code in ("01", "11")]
    cases = {}
    for order in range(2):
        random.Random(order).shuffle(names)
        records, _ = tcga_records(write_gdc_manifest(tmp_path, names), seed=5)
        cases[order] = {record["case_id"]: record["split"] for record in records}
    records, _ = tcga_records(slides=touch(tmp_path / "slides", *names), seed=5)
    assert cases[0] == cases[1] == {record["case_id"]: record["split"] for record in records}
    records, _ = tcga_records(write_gdc_manifest(tmp_path, names), seed=6)
    assert cases[0] != {record["case_id"]: record["split"] for record in records}
