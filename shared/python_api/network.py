"""A bundle's trained network, and its predictions for images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .code_of_bundle import load_code


@dataclass(frozen=True)
class Network:
    """A trained network with all settings of its bundle's ``inference.json``. `load_network` creates it.

    Attributes:
        bundle: folder of the bundle.
        mapper: the bundle's `shared.inference.SlideMapper`.
        mpp: micrometres per pixel that the network sees, and of its answers.
        class_names: of a network of several classes, background first; None for one of tumour.
        threshold: probability from which a pixel counts as tumour; of no meaning with `class_names`.
    """

    bundle: Path
    mapper: Any

    @property
    def mpp(self) -> float:
        return float(self.mapper.mpp)

    @property
    def class_names(self) -> list[str] | None:
        return None if self.mapper.class_names is None else list(self.mapper.class_names)

    @property
    def threshold(self) -> float:
        return float(self.mapper.threshold)

    def predict(self, image: NDArray[np.uint8], mpp: float | None = None, tissue_only: bool | None = None) -> NDArray[np.float32]:
        """The probabilities of an image, the same that ``inference.json`` writes for a PNG file with these pixels.

        The image is brought to the network's pixel size, cut into tiles where it is large, and computed in the precision that
        the device is fastest in.

        Args:
            image: RGB, uint8 ``(H, W, 3)`` of any size.
            mpp: micrometres per pixel of the image; None: those of the network.
            tissue_only: tiles without tissue score 0; None is as the bundle does it. False for crops that show no glass.

        Returns:
            float32 in [0, 1], in steps of 1/255: of tumour ``(h, w)``, of C classes ``(C, h, w)``. h and w are H and W where
            `mpp` is that of the network, and else ``H * mpp / network.mpp``, rounded.

        Raises:
            ValueError: for an array that is no image, or no picture of stained tissue on bright glass.
        """
        found: NDArray[np.float32] = load_code(self.bundle, "shared.inference").map_array(self.mapper, image, mpp, tissue_only)
        return found


def load_network(
    bundle: str | Path,
    checkpoint: str | Path | Sequence[str | Path] | None = None,
    overlays: Sequence[str | Path] = (),
    **keys: Any,
) -> Network:
    """A bundle's trained network, ready to map.

    Args:
        bundle: its folder: of a checkout, downloaded or unpacked.
        checkpoint: a ``model.pt``, or the folder of a training or of a head that came with a bundle; several where the bundle
            averages over several. An ``inference.json`` next to a head is read after the bundle's own. None: what the bundle's
            ``inference.json`` says, which is ``models/model.pt``.
        overlays: configurations of the training after ``inference.json``: names in the bundle's ``configs``, such as
            ``features``, or paths.
        keys: of ``inference.json`` with their values, such as ``device="cpu"`` or ``temperature="runs/mine/temperature.json"``.
            Nested ones as in ``**{"slide_mapper::outputs::simplify_um": 0}``.

    Raises:
        ValueError: for a bundle, overlay, key or checkpoint that is not there, or a checkpoint of another network or training.
        RuntimeError: if this process has loaded another code called `shared` than the bundle's.
    """
    bundle = Path(bundle).expanduser()
    mapper_of = load_code(bundle, "shared.inference").load_slide_mapper
    found = _checkpoints(checkpoint)
    # A path that begins so; others stay as they are, as they may be names in the bundle.
    files = [str(Path(one).expanduser()) if one.startswith("~") else one for one in map(str, overlays)]
    if len(found) == 1:
        # A head that came with a bundle says itself what it is.
        head = found[0].with_name("inference.json")
        files += [str(head)] if head.is_file() else []
    given = {"checkpoints": [str(path) for path in found]} if found else {}
    return Network(bundle.absolute(), mapper_of(bundle, files, given | keys))


def _checkpoints(checkpoint: str | Path | Sequence[str | Path] | None) -> list[Path]:
    if checkpoint is None:
        return []
    paths = [Path(path).expanduser() for path in ([checkpoint] if isinstance(checkpoint, str | Path) else checkpoint)]
    return [path / "model.pt" if path.is_dir() else path for path in paths]
