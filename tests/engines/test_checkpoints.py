import pytest

from shared.engines import find_checkpoints


def test_finding_checkpoints(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
    assert find_checkpoints(f"{tmp_path}/*/model.pt") == [f"{tmp_path}/{name}/model.pt" for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"no file matches .*/\*/weights\.pt: --runs must match"):
        find_checkpoints(f"{tmp_path}/*/weights.pt")
