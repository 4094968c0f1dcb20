"""Slides that cannot be used: failures, or left out where that is asked for; pixel sizes from the objective's magnification."""

import json

import numpy as np
import pytest
import tifffile

from shared.inference import InferenceFailures, SlideMapper
from tests.inference.cohort_processes import SETTINGS, table_of
from tests.inference.flat_options import grouped

APERIO = "Aperio Image Library v11.2.1\n512x512 [0,0 512x512] (256x256) JPEG/RGB Q=70|AppMag = 20"


@pytest.fixture
def slides(tmp_path):
    """A sound slide, one that states its magnification alone, and one that is damaged."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name, description, resolution in (("sound", "", (2e4, 2e4)), ("magnified", APERIO, None)):
        given = {"resolution": resolution, "resolutionunit": "CENTIMETER"} if resolution else {}
        pixels = np.full((512, 512, 3), 230, np.uint8)
        options = {"tile": (256, 256), "photometric": "rgb", "description": description, "metadata": None, **given}
        tifffile.imwrite(folder / f"{name}.tif", pixels, **options)
    (folder / "damaged.tif").write_bytes(b"II*\0" + bytes(100))
    return folder


def mapper(network, **options):
    return SlideMapper(network, **grouped(**SETTINGS | {"mpp": 0.5, "tissue_only": False}), **options)


def statuses(folder):
    return {name: row["status"] for name, row in table_of(folder).items()}


def test_a_slide_that_cannot_be_used_fails_or_is_left_out(tmp_path, slides, redness, caplog):
    out = tmp_path / "out"
    with pytest.raises(InferenceFailures, match="2 of 3 images failed") as failures:
        mapper(redness).run(slides, out)
    assert "or appmag true to take 0.5 um from its magnification" in str(failures.value)
    assert statuses(out) == {"sound": "ok", "magnified": "failed", "damaged": "failed"}
    # The same folder: what is finished stays, and nothing else is a failure any more.
    mapper(redness, skip_problems=True).run(slides, out)
    assert statuses(out) == {"sound": "ok", "magnified": "skipped", "damaged": "skipped"}
    table = table_of(out)
    assert "damaged.tif" in table["damaged"]["reason"]
    assert table["magnified"]["attempts"] == "1"
    assert "2 of 3 images cannot be used and are skipped" in caplog.text


def test_the_magnification_gives_a_pixel_size(tmp_path, slides, redness):
    mapper(redness, skip_problems=True, appmag=True, slide_mpp=0.3).run(slides, tmp_path / "out")
    assert statuses(tmp_path / "out") == {"sound": "ok", "magnified": "ok", "damaged": "skipped"}
    assert {row["mpp"] for row in table_of(tmp_path / "out").values() if row["status"] == "ok"} == {"0.5"}
    assert json.loads((tmp_path / "out/settings.json").read_text())["appmag"] is True


def test_where_no_slide_can_be_used_the_run_fails(tmp_path, slides, redness):
    for name in ("sound", "magnified"):
        (slides / f"{name}.tif").unlink()
    with pytest.raises(InferenceFailures, match=r"1 of 1 images failed:\n.*damaged\.tif"):
        mapper(redness, skip_problems=True).run(slides, tmp_path / "out")
    assert statuses(tmp_path / "out") == {"damaged": "skipped"}
