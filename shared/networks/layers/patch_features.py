"""Fixed colour and texture features of every patch of an image, in one pass over its pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .colour_spaces import rgb_to_grey, rgb_to_hed, rgb_to_lab
from .pixel_normalization import PixelRange
from .texture_maps import cooccurrence_maps, local_binary_patterns

__all__ = ["PatchFeatures"]

# Values of each channel: what lies beyond is in the outermost bin. Stains by their square root, which spreads the pale ones.
RANGES = {
    "red": (0.0, 1.0),
    "green": (0.0, 1.0),
    "blue": (0.0, 1.0),
    "L": (0.0, 100.0),
    "a": (-20.0, 70.0),
    "b": (-70.0, 20.0),
    "haematoxylin": (0.0, 0.6),
    "eosin": (0.0, 0.5),
    "DAB": (0.0, 0.3),
}
NUM_PATTERNS = 10
PAIR_FEATURES = ("contrast", "dissimilarity", "homogeneity", "correlation")


class PatchFeatures(nn.Module):
    """Colour histograms and moments, local binary patterns and Haralick features of overlapping patches.

    Patches are squares whose centres are those of `stride_px` x `stride_px` cells that tile the image, so the result is the image
    at 1 / `stride_px` of its size; patches that reach over the edge see the image mirrored there. All features but deviations and
    correlations are means over a patch's pixels: they are averaged in each cell once, and cells over patches, so the cost does
    not depend on the overlap.

    Args:
        patch_size_px: side of a patch.
        stride_px: between patches; an even number of which `patch_size_px` is an even multiple, so that patches are centred.
        num_bins: of each of nine histograms: RGB, L*a*b*, haematoxylin, eosin and DAB.

    Attributes:
        names: of the features, in their order.

    Raises:
        ValueError: if the sizes do not fit or there are fewer than two bins.

    Reference:
        Xu et al., Medical Image Analysis 2014 (MCIL), describe patches by colour histograms and texture; here scikit-image's
        colour spaces, and the textures of `local_binary_patterns` and `cooccurrence_maps`.
    """

    def __init__(self, patch_size_px: int = 64, stride_px: int = 4, num_bins: int = 8) -> None:
        super().__init__()
        if stride_px < 2 or stride_px % 2 or patch_size_px < 2 * stride_px or patch_size_px % (2 * stride_px):
            raise ValueError(
                f"stride_px must be even and patch_size_px an even multiple of it; got {patch_size_px=}, {stride_px=}"
            )
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}")
        self.patch_size_px, self.stride_px, self.num_bins = patch_size_px, stride_px, num_bins
        self.margin_px = (patch_size_px - stride_px) // 2
        # Smaller ones cannot be mirrored that far.
        self.smallest_image_px = self.margin_px + stride_px + 1
        # TorchScript knows no globals.
        self.lowest = [low for low, _ in RANGES.values()]
        self.scales = [1 / (high - low) for low, high in RANGES.values()]
        self.pattern_radii, self.num_patterns = [1, 2], NUM_PATTERNS
        self.pair_distances, self.num_levels = [1, 3], 16
        self.names = self._names()
        self.pixel_range = PixelRange()

    def forward(self, images: Tensor) -> Tensor:
        """RGB ``(B, 3, H, W)``, 0 to 255, to features ``(B, F, ceil(H / stride), ceil(W / stride))``, float32, F = `len(names)`.

        Raises:
            ValueError: if the images do not have three channels, or are too small to be mirrored at the edges.
        """
        if not torch.jit.is_scripting():
            self.pixel_range.look(images)
        padded = self._mirrored(images.float()) / 255
        channels = torch.cat([padded, rgb_to_lab(padded), rgb_to_hed(padded).sqrt()], dim=1)
        grey = rgb_to_grey(padded)
        cells: list[Tensor] = []
        scaled: list[Tensor] = []
        for index in range(len(self.lowest)):
            values = (channels[:, index : index + 1] - self.lowest[index]) * self.scales[index]
            scaled.append(values)
            cells.append(self._counted((values * self.num_bins).floor().clamp(0, self.num_bins - 1), self.num_bins))
        for radius in self.pattern_radii:
            cells.append(self._counted(local_binary_patterns(grey, radius), self.num_patterns))
        moments = torch.cat(scaled, dim=1)
        levels = (grey * self.num_levels).floor().clamp(0, self.num_levels - 1)
        pairs = [F.avg_pool2d(cooccurrence_maps(levels, distance), self.stride_px) for distance in self.pair_distances]
        squares = F.avg_pool2d(moments * moments, self.stride_px)
        means = torch.cat(cells + [F.avg_pool2d(moments, self.stride_px), squares] + pairs, dim=1)  # noqa: RUF005
        return self._nonlinear(self._over_patches(means))

    def _mirrored(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W); got {list(images.shape)}")
        height, width = images.shape[2], images.shape[3]
        below, right = -height % self.stride_px, -width % self.stride_px
        if min(height, width) < self.smallest_image_px:
            raise ValueError(
                f"images must be larger than {self.margin_px + self.stride_px} px for patches of {self.patch_size_px} px; "
                f"got {height} x {width}"
            )
        margin = self.margin_px
        return F.pad(images, [margin, margin + right, margin, margin + below], mode="reflect")

    def _counted(self, numbers: Tensor, count: int) -> Tensor:
        """Share of each number 0 ... count - 1 in every cell, of ``(B, 1, H, W)``: ``(B, count, h, w)``."""
        each = torch.arange(count, device=numbers.device, dtype=numbers.dtype).view(1, count, 1, 1)
        return F.avg_pool2d((numbers == each).to(torch.float32), self.stride_px)

    def _over_patches(self, cells: Tensor) -> Tensor:
        """Means of cells over patches, rows first: twice 16 sums instead of 256."""
        width = self.patch_size_px // self.stride_px
        return F.avg_pool2d(F.avg_pool2d(cells, [width, 1], stride=1), [1, width], stride=1)

    def _nonlinear(self, means: Tensor) -> Tensor:
        """Deviations from means and mean squares, correlations from those of products."""
        num_channels = len(self.lowest)
        num_shares = num_channels * self.num_bins + len(self.pattern_radii) * self.num_patterns
        first_pair = num_shares + 2 * num_channels
        mean = means[:, num_shares : num_shares + num_channels]
        deviation = (means[:, num_shares + num_channels : first_pair] - mean * mean).clamp_min(0.0).sqrt()
        parts = [means[:, :num_shares], mean, deviation]
        for index in range(len(self.pair_distances)):
            pair = means[:, first_pair + 6 * index : first_pair + 6 * (index + 1)]
            product, level, squares = pair[:, 3:4], pair[:, 4:5], pair[:, 5:6]
            variance = squares - level * level
            correlation = (product - level * level) / variance.clamp_min(1e-4)
            # Of a flat patch 1, as scikit-image has it.
            parts += [pair[:, 0:3], torch.where(variance > 1e-4, correlation, torch.ones_like(correlation))]
        return torch.cat(parts, dim=1)

    @torch.jit.unused
    def _names(self) -> list[str]:
        histograms = [f"{channel} in bin {index}" for channel in RANGES for index in range(self.num_bins)]
        patterns = [f"pattern {index} at {radius} px" for radius in self.pattern_radii for index in range(NUM_PATTERNS)]
        moments = [f"{what} of {channel}" for what in ("mean", "deviation") for channel in RANGES]
        pairs = [f"{what} at {distance} px" for distance in self.pair_distances for what in PAIR_FEATURES]
        return [*histograms, *patterns, *moments, *pairs]
