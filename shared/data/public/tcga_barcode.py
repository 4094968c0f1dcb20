"""The information in the names of TCGA's slides and projects: barcodes, sample types, primary sites.

Barcodes: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/; sample-type codes:
https://gdc.cancer.gov/resources-tcga-users/tcga-code-tables/sample-type-codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# TS, MS and BS: top, middle and bottom section of the frozen portion; DX: for the diagnosis, from paraffin.
SECTIONS = {"TS": "frozen", "MS": "frozen", "BS": "frozen", "DX": "diagnostic"}
SLIDE_NAME = re.compile(
    r"(?P<slide>(?P<sample_id>(?P<case_id>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})-(?P<sample_type>\d\d)[A-Z])"
    r"-[A-Z0-9]{2}-(?P<section>TS|MS|BS|DX)[A-Z0-9]+)"
    r"(\.[0-9A-F-]{8,})?(\.SVS)?"
)

# Project codes to primary sites; projects of one organ share it, so that the organ is either seen in training or not.
LOCATIONS = {
    "TCGA-ACC": "adrenal gland",
    "TCGA-BLCA": "bladder",
    "TCGA-BRCA": "breast",
    "TCGA-CESC": "cervix uteri",
    "TCGA-CHOL": "bile duct",
    "TCGA-COAD": "colon",
    "TCGA-DLBC": "lymph nodes",
    "TCGA-ESCA": "esophagus",
    "TCGA-GBM": "brain",
    "TCGA-HNSC": "head and neck",
    "TCGA-KICH": "kidney",
    "TCGA-KIRC": "kidney",
    "TCGA-KIRP": "kidney",
    "TCGA-LAML": "bone marrow",
    "TCGA-LGG": "brain",
    "TCGA-LIHC": "liver",
    "TCGA-LUAD": "bronchus and lung",
    "TCGA-LUSC": "bronchus and lung",
    "TCGA-MESO": "pleura",
    "TCGA-OV": "ovary",
    "TCGA-PAAD": "pancreas",
    # Phaeochromocytomas arise in it, paragangliomas outside.
    "TCGA-PCPG": "adrenal gland",
    "TCGA-PRAD": "prostate gland",
    "TCGA-READ": "rectum",
    "TCGA-SARC": "soft tissue",
    "TCGA-SKCM": "skin",
    "TCGA-STAD": "stomach",
    "TCGA-TGCT": "testis",
    "TCGA-THCA": "thyroid gland",
    "TCGA-THYM": "thymus",
    "TCGA-UCEC": "corpus uteri",
    "TCGA-UCS": "corpus uteri",
    "TCGA-UVM": "eye",
}
TRAINING_LOCATIONS = ("kidney", "bronchus and lung", "breast")


@dataclass(frozen=True)
class TcgaBarcode:
    """The fields of a TCGA slide's barcode, in upper case.

    Attributes:
        slide: the whole barcode, ``TCGA-CR-7395-01A-01-TS1``.
        sample_id: sample and vial, ``TCGA-CR-7395-01A``.
        case_id: the patient, ``TCGA-CR-7395``.
        sample_type: 1 to 9 tumour, 10 to 19 normal.
        section: ``"frozen"`` (TS, MS, BS) or ``"diagnostic"`` (DX).
    """

    slide: str
    sample_id: str
    case_id: str
    sample_type: int
    section: str

    @property
    def label(self) -> int:
        """1 for a sample of a tumour, 0 for a normal one."""
        return int(self.sample_type < 10)


def parse_barcode(name: str) -> TcgaBarcode:
    """The barcode of a slide, or of its file ``<barcode>[.<UUID>].svs``; lower case is as good as upper.

    Raises:
        ValueError: if the name has another form, or its sample-type code is neither 01-09 (tumour) nor 10-19 (normal): 20-29
            are control analytes.

    >>> parse_barcode("tcga-cr-7395-01a-01-ts1.svs").case_id
    'TCGA-CR-7395'
    """
    match = SLIDE_NAME.fullmatch(name.upper())
    if match is None:
        raise ValueError(f"{name!r} is not the name of a TCGA slide: expected something like TCGA-CR-7395-01A-01-TS1[.UUID].svs")
    code = match["sample_type"]
    if not 1 <= int(code) <= 19:
        raise ValueError(f"sample-type code {code} of {name!r} is neither tumour (01-09) nor normal (10-19)")
    return TcgaBarcode(match["slide"], match["sample_id"], match["case_id"], int(code), SECTIONS[match["section"]])
