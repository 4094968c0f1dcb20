"""A packed bundle as a model of MLflow, which runs this file where the model is loaded: nothing else of the repository is there.

Images in, uint8 ``(N, H, W, 3)``, at the micrometres per pixel that the bundle's inference.json names; the probability of tumour
out, float32 ``(N, H, W)``, of a bundle with several classes ``(N, classes, H, W)``.
"""

from __future__ import annotations

import sys
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel


class PackedBundle(PythonModel):
    """The network of a packed bundle, with the bundle's own copy of its code."""

    def load_context(self, context: Any) -> None:
        bundle = str(context.artifacts["bundle"])
        # Where another version is loaded already, the bundle says so.
        sys.path.insert(0, bundle)
        from shared.inference.bundle_mapper import load_slide_mapper
        from shared.inference.tiles.tile_network import TileNetwork

        mapper = load_slide_mapper(bundle)
        self.device = mapper.compute.torch_device
        names = mapper.class_names
        self.network = TileNetwork(mapper.network, 1 if names is None else len(names)).to(self.device).eval()

    # Without types: MLflow would make a signature of them.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        images = np.asarray(model_input)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"expected images uint8 (N, H, W, 3), found {images.dtype} {images.shape}")
        found = []
        with torch.inference_mode():
            for image in images:
                tile = torch.from_numpy(np.ascontiguousarray(image))[None].to(self.device)
                found.append(self.network(tile, image.shape[:2])[0].cpu().numpy())
        probability = np.stack(found)
        return probability[:, 0] if probability.shape[1] == 1 else probability


mlflow.models.set_model(PackedBundle())
