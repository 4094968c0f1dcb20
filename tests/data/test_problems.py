import pytest

from shared.data.problems import Problems


def test_what_is_wrong_is_one_error_or_remarks():
    problems = Problems()
    problems.add("photos without a label")
    assert problems.report("photos", allow=False) == []
    problems.add("photos without a label", "a.tif", "b.tif")
    problems.add("labels without a photo", *(f"{number}.tif" for number in range(7)))
    found = ["2 photos without a label: a.tif, b.tif", "7 labels without a photo: 0.tif, 1.tif, 2.tif, 3.tif, 4.tif and 2 more"]
    with pytest.raises(ValueError, match="allow_missing") as raised:
        problems.report("photos", allow=False)
    assert str(raised.value).splitlines() == [
        "photos cannot be used as it is (allow_missing leaves these files out):",
        *(f"  {line}" for line in found),
    ]
    assert problems.report("photos", allow=True) == [f"left out {line}" for line in found]
