"""A TorchScript or torch.export file as an encoder: what it returns is found by trying."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.layers.pixel_normalization import check_shares_of_255
from .encoder import Encoder, EncoderFacts, FeatureOptions

__all__ = ["ExportedEncoder", "load_exported"]

USUAL_SIZE_PX = 224
# Class and register tokens; no published transformer has more.
MOST_PREFIX_TOKENS = 16
EXPECTED = "expected a map (B, C, h, w), tokens (B, N, C) or a vector (B, C) for each image"


@dataclass(frozen=True)
class _Output:
    """The output of a network for images of one size: channels, pixels between features, tokens before those of the patches."""

    kind: str
    channels: int
    stride_px: int
    prefix_tokens: int = 0


class _Fixed(nn.Module):
    """Stays in the mode that it was exported in: modules of torch.export refuse `train` and `eval`."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images)

    def train(self, mode: bool = True) -> _Fixed:
        self.training = False
        return self


class ExportedEncoder(Encoder):
    """Features of an exported network, which takes normalised images ``(B, 3, H, W)``.

    Args:
        facts: what is known of the encoder.
        network: as it was loaded.
        output: what it returns.
        file_hash: of the file, a part of the key: the same weights may stand in another network.
        options: which features are taken.
    """

    def __init__(
        self, facts: EncoderFacts, network: nn.Module, output: _Output, file_hash: str, options: FeatureOptions | None = None
    ) -> None:
        options = options or FeatureOptions()
        kinds = {"map": ["dense"], "vector": ["embedding"], "tokens": ["dense"]}[output.kind]
        if output.prefix_tokens:
            kinds += ["class", "dense+class"]
        channels = output.channels * (2 if options.tokens == "dense+class" else 1)
        super().__init__(facts, {output.stride_px: channels}, options, kinds)
        self.network, self.output, self.file_hash = network, output, file_hash

    @property
    def aliases(self) -> list[str]:
        """None: a file may have any name."""
        return []

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "file": self.file_hash}

    def native_features(self, images: Tensor) -> list[Tensor]:
        side = self.native_stride_px
        rows, columns = images.shape[-2] // side, images.shape[-1] // side
        if self.output.kind == "map":
            return [self.network(images)]
        if self.output.kind == "vector":
            tiles = images.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
            return [self.network(tiles).unflatten(0, (images.shape[0], rows, columns)).permute(0, 3, 1, 2)]
        tokens = self.network(images)
        patches = tokens[:, self.output.prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns))
        if self.tokens == "dense":
            return [patches]
        of_class = tokens[:, 0, :, None, None].expand(-1, -1, rows, columns)
        return [of_class if self.tokens == "class" else torch.cat([patches, of_class], dim=1)]


def load_exported(
    path: str | Path,
    options: FeatureOptions | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    mpp: float | None = None,
    input_size_px: int | None = None,
    licence: str | None = None,
) -> ExportedEncoder:
    """A network from a TorchScript (``.pt``, ``.ts``) or torch.export file (``.pt2``).

    Args:
        path: of the file.
        options: which features are taken. Tokens may be those of patches alone, or come after a class token and registers.
        mean: of red, green and blue as shares of 255; 0 with a `std` of 1 / 255 for a network that normalises by itself.
        std: the same.
        mpp: micrometres per pixel that it was trained at; None for any.
        input_size_px: side of the images that it was trained on. One that returns vectors embeds tiles of this size.
        licence: of its weights.

    Raises:
        ValueError: naming the file, if it is no such file, its normalisation is not given, or it returns something else, or
            takes images of one size alone; and if the normalisation is not in shares of 255.
    """
    path = Path(path)
    if mean is None or std is None:
        raise ValueError(
            f"{path} does not state how its images are normalised: give mean and std of red, green, blue as shares of 255, or "
            "mean [0, 0, 0] and std [0.00392156862745098, 0.00392156862745098, 0.00392156862745098] if it normalises the "
            "images itself"
        )
    check_shares_of_255(mean, std)
    network = _Fixed(_loaded(path))
    size = input_size_px or USUAL_SIZE_PX
    output = _output(path, network, size)
    facts = EncoderFacts(path.name, mean, std, mpp, size if output.kind == "vector" else input_size_px, licence)
    return ExportedEncoder(facts, network, output, _digest(path), options)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _loaded(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"the encoder {path} does not exist: expected a TorchScript (.pt, .ts) or torch.export file (.pt2)")
    try:
        return torch.export.load(path).module() if path.suffix == ".pt2" else torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:  # each kind of file has its own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} is not a TorchScript (.pt, .ts) or torch.export file (.pt2): {first}. Give the file of a state dict as "
            "checkpoint_path, together with the name of its network"
        ) from error


def _output(path: Path, network: nn.Module, size_px: int) -> _Output:
    """What the network returns, checked by two images of one size and, unless they are vectors, one of another."""
    found = _tried(path, network, (2, 3, size_px, size_px))
    output = _recognised(path, found, size_px)
    if output.kind == "vector":
        return output
    wide = size_px + 2 * output.stride_px
    found = _tried(path, network, (1, 3, size_px, wide))
    height, width = size_px // output.stride_px, wide // output.stride_px
    of_map, of_tokens = (1, output.channels, height, width), (1, output.prefix_tokens + height * width, output.channels)
    expected = of_map if output.kind == "map" else of_tokens
    if tuple(found.shape) != expected:
        raise ValueError(f"{path} must return {expected} for images of {size_px} x {wide} px; found {tuple(found.shape)}")
    return output


def _tried(path: Path, network: nn.Module, shape: tuple[int, int, int, int]) -> Tensor:
    try:
        with torch.no_grad():
            found = network(torch.zeros(shape))
    except Exception as error:  # whatever the network raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{path} does not accept images {shape}: {lines[-1]}. Export it with dynamic batch and image sizes, or, if it "
            "returns one vector per image, give the size that it expects as input_size_px"
        ) from error
    if not isinstance(found, Tensor) or found.ndim not in (2, 3, 4) or not found.is_floating_point():
        kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{path} returns {kind}: {EXPECTED}. Export a network that returns only its features")
    return found


def _recognised(path: Path, found: Tensor, size_px: int) -> _Output:
    if found.ndim == 2:
        return _Output("vector", found.shape[1], size_px)
    if found.ndim == 4:
        rows, columns = found.shape[-2:]
        if rows != columns or size_px % rows:
            raise ValueError(
                f"{path} returns {tuple(found.shape)} for images of {size_px} px per side: {EXPECTED}, where h divides H"
            )
        return _Output("map", found.shape[1], size_px // rows)
    for prefix_tokens in range(MOST_PREFIX_TOKENS + 1):
        side = round(max(found.shape[1] - prefix_tokens, 0) ** 0.5)
        if side and side * side == found.shape[1] - prefix_tokens and size_px % side == 0:
            return _Output("tokens", found.shape[2], size_px // side, prefix_tokens)
    raise ValueError(
        f"{path} returns {found.shape[1]} tokens for images of {size_px} px per side, which do not form a square grid"
    )
