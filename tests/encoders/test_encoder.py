"""What all encoders have in common, by one of a single layer."""

import pytest
import torch
from torch import nn

from shared.encoders import Encoder, EncoderFacts, FeatureOptions, load_encoder


class Averages(Encoder):
    """Mean colours of 4 x 4 and 8 x 8 pixels, times a weight."""

    def __init__(self, options=None, name="averages", mean=(0.0, 0.0, 0.0)):
        super().__init__(EncoderFacts(name, mean=mean, std=(1 / 255,) * 3), {4: 3, 8: 3}, options)
        self.weight = nn.Parameter(torch.ones(1))

    def native_features(self, images):
        return [nn.functional.avg_pool2d(images, stride) * self.weight for stride in self.native_strides_px]


def test_features_of_an_enlarged_image_lie_over_its_pixels():
    images = torch.arange(3 * 8 * 16, dtype=torch.float32).reshape(1, 3, 8, 16)
    encoder = Averages(FeatureOptions(stride_px=2))
    assert encoder(images).shape == (1, 3, 4, 8)
    # Away from the border the mean of a doubled ramp is the mean of the ramp.
    expected = nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(encoder(images)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_tiles_of_slides_keep_their_size_at_a_smaller_stride_and_are_seen_enlarged():
    class Sized(Averages):
        def __init__(self, options):
            Encoder.__init__(self, EncoderFacts("sized", input_size_px=224), {16: 4}, options)
            self.weight = nn.Parameter(torch.ones(1))

        def native_features(self, images):
            self.seen_px = images.shape[-1]
            return super().native_features(images)

    for stride_px, seen_px in ((None, 224), (8, 448)):
        encoder = Sized(FeatureOptions(stride_px=stride_px))
        assert encoder.slide_tile_px == 224
        encoder(torch.zeros(1, 3, 224, 224))
        assert encoder.seen_px == seen_px


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (FeatureOptions(stride_px=9), "stride_px must be 1 to 8, the stride of averages; got 9"),
        (FeatureOptions(stride_px=0), "stride_px must be 1 to 8"),
        (FeatureOptions(smoothing=2), "smoothing must be an odd number of cells, 1 or more; got 2"),
        (FeatureOptions(strides_px=(8, 4)), r"strides_px must ascend and be among those of averages, \[4, 8\]; got \[8, 4\]"),
        (FeatureOptions(strides_px=(16,)), r"must ascend and be among those of averages, \[4, 8\]; got \[16\]"),
        (FeatureOptions(strides_px=()), r"got \[\]"),
        (FeatureOptions(tokens="class"), "the tokens of averages must be one of dense; got 'class'"),
    ],
)
def test_rejects_what_it_cannot_give(options, said):
    with pytest.raises(ValueError, match=said):
        Averages(options)


@pytest.mark.parametrize("shape", [(1, 3, 8, 12), (1, 1, 8, 8), (3, 8, 8)])
def test_rejects_images_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"multiples of 8 px; got 8 x 12|images must be \(B, 3, H, W\)"):
        Averages()(torch.full(shape, 100, dtype=torch.uint8))


def test_the_key_is_that_of_what_changes_the_features():
    other_weight = Averages()
    other_weight.load_state_dict(other_weight.state_dict() | {"weight": torch.full((1,), 2.0)})
    same = Averages(FeatureOptions(stride_px=8, strides_px=(8,)))
    others = [
        other_weight,
        Averages(name="others"),
        Averages(mean=(0.1, 0.0, 0.0)),
        Averages(FeatureOptions(stride_px=4)),
        Averages(FeatureOptions(smoothing=3)),
        Averages(FeatureOptions(strides_px=(4, 8))),
    ]
    keys = [one.key for one in others]
    assert same.key == Averages().key
    assert len({same.key, *keys}) == 1 + len(others)
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_loading_weights_gives_another_key_and_moving_the_network_does_not():
    encoder = Averages()
    key = encoder.key
    assert encoder.half().key == key
    encoder.load_state_dict(encoder.state_dict() | {"weight": torch.full((1,), 3.0)})
    assert encoder.key != key


def test_an_unknown_source_is_an_error():
    with pytest.raises(ValueError, match="there is no encoder 'unit': expected efficientnet_lite0, resnet18"):
        load_encoder("unit")


@pytest.mark.parametrize(("max_stride_px", "stride_px"), [(None, 8), (16, 8), (8, 8), (6, 6)])
def test_a_stride_follows_the_encoder(max_stride_px, stride_px):
    assert Averages(FeatureOptions(max_stride_px=max_stride_px)).stride_px == stride_px
    # One that is given counts.
    assert Averages(FeatureOptions(stride_px=4, max_stride_px=max_stride_px)).stride_px == 4


@pytest.mark.parametrize(("num_strides", "strides_px"), [(None, (8,)), (1, (8,)), (2, (4, 8)), (3, (4, 8))])
def test_the_last_strides_that_there_are(num_strides, strides_px):
    assert Averages(FeatureOptions(num_strides=num_strides)).native_strides_px == strides_px


@pytest.mark.parametrize("wrong", [{"num_strides": 0}, {"num_strides": 2, "strides_px": (4, 8)}])
def test_strides_are_counted_or_named(wrong):
    with pytest.raises(ValueError, match="num_strides must be 1 or more, in place of strides_px"):
        Averages(FeatureOptions(**wrong))


def test_lengths_are_whole_features_and_whole_pixels_of_maps():
    # Of 6 px and 4 px: multiples of 12.
    assert [Averages(FeatureOptions(stride_px=6)).whole_px(length) for length in (1, 12, 64, 512)] == [12, 12, 72, 516]
    assert [Averages().whole_px(length) for length in (64, 512)] == [64, 512]


def test_a_stride_that_follows_the_encoder_has_the_features_of_one_that_is_given():
    following = load_encoder("efficientnet_lite0", num_strides=3, max_stride_px=16)
    assert following.key == load_encoder("efficientnet_lite0", 16, strides_px=(8, 16, 32)).key
