"""The scores of a network that is trained on bags on whole slides."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn

from ..data.bag_dataset import SlideBagDataset
from ..engines.batches import SlideBags
from ..engines.distributed import over_dataset, unwrap
from ..engines.inferers import fast_inferer
from ..networks.ensemble import ProbabilityEnsemble

__all__ = ["SlideScores"]


class SlideScores:
    """A probability of tumour for each slide, from its bag as a whole.

    Args:
        dataset: bags of the slides, such as all of a slide's features.
        network: from bags to a dictionary with ``slide_logits (B,)``, such as `shared.networks.AttentionMIL`; of several that
            answer together the mean of their probabilities counts.
        device: to compute on.
        num_workers: processes that read.
    """

    def __init__(self, dataset: SlideBagDataset, network: nn.Module, device: torch.device | str, num_workers: int = 0) -> None:
        self.dataset, self.network, self.device, self.num_workers = dataset, network, torch.device(device), num_workers

    @torch.inference_mode()
    def run(self) -> list[float]:
        """Scores of every slide, in the order of the data set and on every process."""
        plain = unwrap(self.network).to(self.device).eval()
        networks = list(plain.networks) if isinstance(plain, ProbabilityEnsemble) else [plain]
        infer, prepare = fast_inferer(SimpleInferer(), self.device), SlideBags()

        def of_slide(batch: dict[str, Any]) -> list[float]:
            bags, _ = prepare(batch, self.device)
            probabilities = torch.stack([infer(bags, network)["slide_logits"].sigmoid() for network in networks])
            return probabilities.mean(dim=0).tolist()

        return over_dataset(self.dataset, of_slide, 1, self.num_workers, "scoring slides", "slide")
