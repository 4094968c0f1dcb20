"""Maps that are kept for each version, without a network."""

from types import SimpleNamespace

import pytest

from scripts.label_server.learning.kept_maps import KeptMaps
from scripts.label_server.refusal import Refusal


@pytest.mark.parametrize("skips", [False, True])
def test_a_slide_that_cannot_be_used_is_refused_whether_or_not_cohorts_skip_it(tmp_path, skips):
    def map_image(image, output_dir, title=""):
        raise ValueError(f"{image.path} has no mpp")

    mapper = SimpleNamespace(map_image=map_image, settings=lambda: {"weights_sha256": "0"}, skip_problems=skips)
    model = SimpleNamespace(mapper=mapper, key="0")
    (tmp_path / "a.tif").write_bytes(b"no slide")
    for _ in range(2):
        with pytest.raises(Refusal, match=r"a cannot be mapped: ValueError: .*a\.tif has no mpp") as refusal:
            KeptMaps(tmp_path / "maps").map_slide("version", model, "a", tmp_path / "a.tif")
        assert refusal.value.status == 422
