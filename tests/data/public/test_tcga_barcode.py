"""What the name of a TCGA slide says."""

import pytest

from shared.data.public.tcga_barcode import LOCATIONS, TRAINING_LOCATIONS, parse_barcode
from tests.data.tcga_layout import UUID


def test_the_parts_of_a_barcode():
    barcode = parse_barcode(f"TCGA-CR-7395-01A-01-TS1.{UUID}.svs")
    assert barcode.slide == "TCGA-CR-7395-01A-01-TS1"
    assert (barcode.case_id, barcode.sample_id, barcode.sample_type) == ("TCGA-CR-7395", "TCGA-CR-7395-01A", 1)
    assert (barcode.label, barcode.section) == (1, "frozen")


@pytest.mark.parametrize("form", ["{}", "{}.svs", "{}.SVS", f"{{}}.{UUID}.svs", f"{{}}.{UUID.lower()}.svs", f"{{}}.{UUID}"])
def test_forms_of_a_name(form):
    name = "TCGA-CR-7395-01A-01-TS1"
    assert parse_barcode(form.format(name)) == parse_barcode(form.format(name.lower())) == parse_barcode(name)


@pytest.mark.parametrize("code", range(1, 20))
def test_label_of_every_code(code):
    assert parse_barcode(f"TCGA-CR-7395-{code:02}A-01-TS1").label == (1 if code <= 9 else 0)


@pytest.mark.parametrize("code", ["00", "20", "29", "40", "50", "60", "99"])
def test_rejects_codes_that_are_neither_tumour_nor_normal(code):
    with pytest.raises(ValueError, match=rf"sample-type code {code} of 'TCGA-CR-7395-{code}A-01-TS1.svs' is neither tumour"):
        parse_barcode(f"TCGA-CR-7395-{code}A-01-TS1.svs")


@pytest.mark.parametrize(
    ("code", "section"),
    [("TS1", "frozen"), ("TSA", "frozen"), ("MS2", "frozen"), ("BS12", "frozen"), ("DX1", "diagnostic"), ("DXB", "diagnostic")],
)
def test_sections(code, section):
    assert parse_barcode(f"TCGA-A2-A0T2-01Z-00-{code}.svs").section == section


@pytest.mark.parametrize(
    "name",
    [
        "",
        "TCGA-CR-7395.svs",
        "TCGA-CR-7395-01A.svs",
        "TCGA-CR-7395-01-01-TS1.svs",  # no vial
        "TCGA-CR-739-01A-01-TS1.svs",  # three characters
        "TCGA-CR-7395-1A-01-TS1.svs",
        "TCGA-CR-7395-01A-01-XX1.svs",
        "TCGA-CR-7395-01A-01D-0182-01.svs",  # an analyte
        "TCGA-CR-7395-01A-01-TS1.tif",
        "TCGA-CR-7395-01A-01-TS1.svs.partial",
        "C3L-00001-21.svs",
    ],
)
def test_rejects_other_names(name):
    with pytest.raises(ValueError, match=f"{name!r} is not the name of a TCGA slide"):
        parse_barcode(name)


def test_all_projects_have_a_location():
    assert len(LOCATIONS) == 33
    assert set(TRAINING_LOCATIONS) <= set(LOCATIONS.values())
