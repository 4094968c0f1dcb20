import pytest
import torch

from shared.networks.layers.packed_strides import pack_strides, packed_channels, unpack_strides


@pytest.mark.parametrize(("channels", "strides"), [([5], [32]), ([2, 3, 4], [8, 16, 32]), ([2, 3], [4, 32])])
def test_maps_come_back_as_they_were(channels, strides):
    maps = [torch.randn(2, c, 3 * strides[-1] // s, 5 * strides[-1] // s) for c, s in zip(channels, strides, strict=True)]
    packed = pack_strides(maps, strides)
    assert packed.shape == (2, packed_channels(channels, strides), 3, 5)
    assert torch.equal(packed, pack_strides(maps))
    for found, expected in zip(unpack_strides(packed, channels, strides), maps, strict=True):
        assert torch.equal(found, expected)


def test_a_place_holds_what_lies_over_it():
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pack_strides([fine, torch.zeros(1, 1, 2, 2)], [1, 2])[0, :, 0, 1].tolist() == [2, 3, 6, 7, 0]


def test_channels_that_do_not_fit_are_an_error():
    with pytest.raises(RuntimeError, match="split"):
        unpack_strides(torch.zeros(1, 16, 2, 2), [3, 5], [8, 16])
