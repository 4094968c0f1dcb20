import pytest
import torch

from shared.inference.tiles.symmetries import mean_over, symmetries

IMAGES = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)


@pytest.mark.parametrize(("tta", "number"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_each_is_another_view_and_can_be_undone(tta, number):
    views = [symmetry.apply(IMAGES) for symmetry in symmetries(tta)]
    assert len(views) == number
    assert len({(tuple(view.shape), tuple(view[0, 0].flatten().tolist())) for view in views}) == number
    for symmetry, view in zip(symmetries(tta), views, strict=True):
        torch.testing.assert_close(symmetry.undo(view), IMAGES)


def test_flips_are_flips():
    views = {tuple(symmetry.apply(IMAGES).flatten().tolist()) for symmetry in symmetries("flips")}
    assert views == {tuple(IMAGES.flip(dims).flatten().tolist()) for dims in ([], [2], [3], [2, 3])}


def test_mean_of_the_answers_turned_back():
    """A network that looks to the left sees, on average over the flips, left and right alike."""

    def left(images):
        return torch.nn.functional.pad(images[:, :1, :, :-1], (1, 0))

    mean = mean_over(symmetries("flips"), left, IMAGES)
    right = left(IMAGES.flip(-1)).flip(-1)
    torch.testing.assert_close(mean, (left(IMAGES) + right) / 2)
    below = torch.nn.functional.pad(IMAGES[:, :1, 1:], (0, 0, 0, 1))
    above = torch.nn.functional.pad(IMAGES[:, :1, :-1], (0, 0, 1, 0))
    torch.testing.assert_close(mean_over(symmetries("dihedral"), left, IMAGES), (left(IMAGES) + right + above + below) / 4)


def test_one_answer_a_tile_is_averaged_too():
    answers = mean_over(symmetries("dihedral"), lambda images: images[:, :1, :1, :1], IMAGES)
    corners = IMAGES[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].mean(dim=1)
    torch.testing.assert_close(answers[:, 0, 0, 0], corners)


def test_rejects_another_name():
    with pytest.raises(ValueError, match="tta must be one of none, flips, dihedral; got 'all'"):
        symmetries("all")
