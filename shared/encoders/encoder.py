"""The base of all encoders: images to dense features, with all that users must know about them."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.layers.packed_strides import pack_strides, packed_channels
from ..networks.layers.pixel_normalization import IMAGENET_MEAN, IMAGENET_STD, PixelNormalization, check_shares_of_255

__all__ = ["GIVEN_FACTS", "Encoder", "EncoderFacts", "FeatureOptions", "completed_facts", "facts_of_weights"]

# Those of `EncoderFacts` that a user can give where a source does not state them.
GIVEN_FACTS = ("mean", "std", "mpp", "input_size_px", "licence")

# A pixel of a slide's map is the mean of as many along each side.
MAP_PIXEL_PX = 4
# Of tiles of slides, for an encoder of images of any size.
USUAL_TILE_PX, USUAL_MARGIN_PX = 512, 64


@dataclass(frozen=True)
class EncoderFacts:
    """The facts about an encoder apart from its network.

    Args:
        name: as given to `load_encoder`.
        mean: of red, green, blue, as shares of 255.
        std: the same.
        mpp: micrometres per pixel that it was trained at; None for any.
        input_size_px: side of the images that it was trained on, where that matters; None for any.
        licence: of its weights; None where it is not known.
        is_gated: whether its weights are only given to people who have accepted its terms.
        aliases: other programs' names for it, in addition to this one.
    """

    name: str
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    mpp: float | None = None
    input_size_px: int | None = None
    licence: str | None = None
    is_gated: bool = False
    aliases: Sequence[str] = ()


def completed_facts(
    facts: EncoderFacts, given: Mapping[str, Any], unstated: Collection[str] = (), silent: str = "", whose: str = ""
) -> EncoderFacts:
    """The facts about an encoder with what its user says of it. A warning names the normalisation where nobody states it.

    Args:
        facts: about the encoder, among them a mean and std to use where none are given.
        given: some of `GIVEN_FACTS`, by name.
        unstated: names of those that the encoder's source does not state.
        silent: what does not state mean and std, for the warning.
        whose: those of `facts` are, for the warning.

    Raises:
        ValueError: if one is given that the source states, mean or std without the other, or values that are no shares of 255.
    """
    if refused := [name for name in given if name not in unstated]:
        own = ", ".join(f"{name} {'any' if getattr(facts, name) is None else getattr(facts, name)}" for name in refused)
        raise ValueError(f"{', '.join(refused)} cannot be given: {facts.name} has its own ({own})")
    if ("mean" in given) != ("std" in given):
        raise ValueError(f"give mean and std of {facts.name} together; got {'mean' if 'mean' in given else 'std'} alone")
    if "mean" in given:
        check_shares_of_255(given["mean"], given["std"])
        # A whole number would change the key.
        given = {**given, **{name: tuple(map(float, given[name])) for name in ("mean", "std")}}
    elif "mean" in unstated:
        warnings.warn(
            f"{silent} does not state how images are normalised: mean {list(facts.mean)} and std {list(facts.std)} are used, "
            f"those of {whose}. If the weights were trained with others, give mean and std as shares of 255 (encoder_facts::mean "
            "and encoder_facts::std of a bundle); give these to end this warning",
            stacklevel=2,
        )
    return replace(facts, **given)


def facts_of_weights(facts: EncoderFacts, given: Mapping[str, Any], checkpoint_path: str | Path | None) -> EncoderFacts:
    """The facts about an encoder whose published weights state all of them, and its user's own weights none.

    Args:
        facts: about the published weights.
        given: see `completed_facts`.
        checkpoint_path: of the user's own weights; None for the published ones.
    """
    if checkpoint_path is None:
        return completed_facts(facts, given)
    return completed_facts(replace(facts, licence=None), given, GIVEN_FACTS, str(checkpoint_path), facts.name)


@dataclass(frozen=True)
class FeatureOptions:
    """Which features of a network are taken, and how densely.

    Args:
        stride_px: one feature every so many pixels; None for the network's own stride. Images are enlarged where it is smaller.
        max_stride_px: where `stride_px` is None, features lie at most so many pixels apart: the stride is this, or the network's
            own where that is smaller. None for the network's own.
        smoothing: odd number of places; each feature is the mean over the ``smoothing x smoothing`` places around it that
            exist.
        strides_px: strides of the network's own maps, finest first, that are packed into one (see `pack_strides`); None for
            its last map.
        num_strides: instead of `strides_px`: so many of the network's own maps, the last ones; all of them where it has fewer.
        tokens: "dense" for a feature of each place: a convolutional network's map, a vision transformer's patch tokens. Of the
            latter also "class" for the image's own token, repeated on the grid, and "dense+class" for both. "embedding" cuts
            the image into tiles of the encoder's input size and gives one feature of each, by the rule of its authors.
    """

    stride_px: int | None = None
    smoothing: int = 1
    strides_px: Sequence[int] | None = None
    tokens: str = "dense"
    max_stride_px: int | None = None
    num_strides: int | None = None


class Encoder(nn.Module, ABC):
    """Images to dense features. Subclasses implement `native_features`.

    Args:
        facts: what is known of the encoder.
        channels_of_stride: channels of each map that the network has, by its stride in pixels.
        options: which of them are taken, and how densely.
        tokens: what `options` may ask for, see `FeatureOptions`.

    Attributes:
        channels: of a feature, of the packed one where several strides are asked for.
        stride_px: one feature every so many pixels of the images that are given to `forward`.
        native_stride_px: of the network's coarsest map that is taken, in pixels of the images that the network sees.
        enlargement: ``native_stride_px / stride_px``, by which images are enlarged for it, bilinearly.
        strides_px: of the packed maps, in pixels of the images that are given to `forward`, finest first.
        map_channels: of the packed maps, finest first, as `unpack_strides` takes them.
        size_multiple_px: the sides of images are multiples of it.

    Raises:
        ValueError: if the network has no such stride, or an option is out of its range.
    """

    # TorchScript compiles properties unless they are named here.
    __jit_unused_properties__ = ("aliases", "key", "slide_margin_px", "slide_tile_px")

    def __init__(
        self,
        facts: EncoderFacts,
        channels_of_stride: Mapping[int, int],
        options: FeatureOptions | None = None,
        tokens: Sequence[str] = ("dense",),
    ) -> None:
        super().__init__()
        options = options or FeatureOptions()
        if options.tokens not in tokens:
            raise ValueError(f"the tokens of {facts.name} must be one of {', '.join(tokens)}; got {options.tokens!r}")
        self.facts, self.tokens = facts, options.tokens
        self.name, self.mpp, self.input_size_px = facts.name, facts.mpp, facts.input_size_px
        self.licence, self.is_gated = facts.licence, facts.is_gated
        self.mean, self.std = tuple(facts.mean), tuple(facts.std)
        self.native_strides_px = _checked_strides(facts.name, channels_of_stride, options)
        self.native_stride_px = self.native_strides_px[-1]
        self.stride_px = _checked_stride(facts.name, self.native_stride_px, options)
        self.enlargement = self.native_stride_px / self.stride_px
        self.strides_px = tuple(stride * self.stride_px // self.native_stride_px for stride in self.native_strides_px)
        self.smoothing = _checked_smoothing(options.smoothing)
        self.map_channels = tuple(channels_of_stride[stride] for stride in self.native_strides_px)
        self.channels = packed_channels(list(self.map_channels), list(self.native_strides_px))
        self.size_multiple_px = self.stride_px
        self.normalization = PixelNormalization(facts.mean, facts.std)
        self._key: str | None = None
        self.register_load_state_dict_post_hook(_forget_key)

    @abstractmethod
    def native_features(self, images: Tensor) -> list[Tensor]:
        """Normalised images ``(B, 3, H, W)`` to the maps ``(B, C_i, H / s_i, W / s_i)`` of `native_strides_px`, finest first."""

    def forward(self, images: Tensor) -> Tensor:
        """Images to features.

        Args:
            images: RGB ``(B, 3, H, W)``, uint8 or float, 0 to 255; H and W are multiples of `size_multiple_px`.

        Returns:
            ``(B, channels, H / stride_px, W / stride_px)``. Feature (i, j) stands for the pixels from ``(i, j) * stride_px``
            on.

        Raises:
            ValueError: if the images have another shape.
        """
        normalised = self.normalization(images)
        height, width = images.shape[-2], images.shape[-1]
        # While tracing, a comparison of sizes would only give a warning.
        if not torch.jit.is_tracing() and (height % self.size_multiple_px != 0 or width % self.size_multiple_px != 0):
            raise ValueError(f"the sides of images must be multiples of {self.size_multiple_px} px; got {height} x {width}")
        if self.stride_px != self.native_stride_px:
            size = [height // self.stride_px * self.native_stride_px, width // self.stride_px * self.native_stride_px]
            normalised = F.interpolate(normalised, size=size, mode="bilinear", align_corners=False)
        maps = self.native_features(normalised)
        if self.smoothing > 1:
            maps = [_means_around(one, self.smoothing) for one in maps]
        return pack_strides(maps, list(self.native_strides_px))

    def whole_px(self, length_px: int) -> int:
        """The least length, not below `length_px`, of whole features and whole pixels of a slide's map: for tiles and margins."""
        unit_px = math.lcm(self.size_multiple_px, MAP_PIXEL_PX)
        return -(-length_px // unit_px) * unit_px

    @property
    def slide_tile_px(self) -> int:
        """Side of the tiles in which slides are read: the size that it was trained at, or 512 where any will do, see `whole_px`.

        At the size that they were trained at, where that is whole features and whole map pixels (224 px), position embeddings
        stay as they are; else (518 px at stride 14, read in tiles of 532) they are interpolated. So they are where images are
        enlarged for a stride below the network's own: tiles keep their size in the slide, and the network sees them enlarged.
        """
        return self.whole_px(self.input_size_px or USUAL_TILE_PX)

    @property
    def slide_margin_px(self) -> int:
        """By which these tiles overlap at each side, and which is thrown away: 64, see `whole_px`, where any size will do.

        It is 0 for tiles of the size that it was trained at, and for one feature per image.
        """
        return 0 if self.input_size_px or self.tokens == "class" else self.whole_px(USUAL_MARGIN_PX)

    @property
    def aliases(self) -> list[str]:
        """All names that feature files may use for it; none where its name is only that of a file."""
        name = self.name
        if "/" in name:
            model = name.rsplit("/", 1)[1]
            return list(dict.fromkeys([name, model, model.split(".")[0], *self.facts.aliases]))
        return [name, *self.facts.aliases]

    @property
    def key(self) -> str:
        """16 hexadecimal digits: a hash of the weights and of everything else that changes the features.

        It is that of the weights when it was first asked for, or last loaded: not of what a later training made of them, nor of
        their copies in half precision.
        """
        if self._key is None:
            digest = hashlib.sha256(json.dumps(self._settings(), sort_keys=True).encode())
            for name, value in sorted(self.state_dict().items()):
                if not name.endswith("num_batches_tracked"):
                    digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
                    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            self._key = digest.hexdigest()[:16]
        return self._key

    def _settings(self) -> dict[str, Any]:
        """Everything but the weights that changes the features."""
        return {
            "name": self.name,
            "mean": list(self.mean),
            "std": list(self.std),
            "stride_px": self.stride_px,
            "native_strides_px": list(self.native_strides_px),
            "smoothing": self.smoothing,
            "tokens": self.tokens,
        }

    def description(self) -> dict[str, Any]:
        """The description of the encoder in a feature file: name, key, options, normalisation, mpp, input size and licence."""
        return {
            **self._settings(),
            "key": self.key,
            "channels": self.channels,
            "native_stride_px": self.native_stride_px,
            "strides_px": list(self.strides_px),
            "map_channels": list(self.map_channels),
            "mpp": self.mpp,
            "input_size_px": self.input_size_px,
            "licence": self.licence,
            "is_gated": self.is_gated,
        }


def _means_around(features: Tensor, smoothing: int) -> Tensor:
    return F.avg_pool2d(features, smoothing, stride=1, padding=smoothing // 2, ceil_mode=False, count_include_pad=False)


def _forget_key(encoder: nn.Module, incompatible_keys: object) -> None:
    assert isinstance(encoder, Encoder)
    encoder._key = None


def _checked_strides(name: str, channels_of_stride: Mapping[int, int], options: FeatureOptions) -> tuple[int, ...]:
    known, strides_px, num_strides = sorted(channels_of_stride), options.strides_px, options.num_strides
    if num_strides is not None and (strides_px is not None or num_strides < 1):
        raise ValueError(f"num_strides must be 1 or more, in place of strides_px; got {num_strides=}, {strides_px=}")
    chosen = known[-(num_strides or 1) :] if strides_px is None else list(strides_px)
    if not chosen or chosen != sorted(set(chosen)) or not set(chosen) <= set(known):
        raise ValueError(f"strides_px must ascend and be among those of {name}, {known}; got {chosen}")
    if any(chosen[-1] % stride for stride in chosen):
        raise ValueError(f"each of strides_px must divide the last one; got {chosen}")
    return tuple(chosen)


def _checked_stride(name: str, native_stride_px: int, options: FeatureOptions) -> int:
    stride_px, max_px = options.stride_px, options.max_stride_px
    if stride_px is None and max_px is not None and max_px < native_stride_px and options.tokens == "embedding":
        raise ValueError(
            f"tokens {options.tokens!r} of {name} are one feature for each image of {native_stride_px} px, and one every "
            f"{max_px} px is needed here, for which every image would be enlarged {native_stride_px / max_px:.0f} times. Give "
            "an encoder with features of patches (tokens dense), or a method that learns from slides' labels"
        )
    if stride_px is None:
        stride_px = min(native_stride_px, options.max_stride_px or native_stride_px)
    if not 1 <= stride_px <= native_stride_px:
        raise ValueError(
            f"stride_px must be 1 to {native_stride_px}, the stride of {name}; got {stride_px}. With null (None) it follows the "
            "encoder; for features further apart read the slide at more micrometres per pixel"
        )
    return stride_px


def _checked_smoothing(smoothing: int) -> int:
    if smoothing < 1 or smoothing % 2 == 0:
        raise ValueError(f"smoothing must be an odd number of cells, 1 or more; got {smoothing}")
    return smoothing
