"""The values that maps of a split's slides would have, from stored features: no map is written to choose a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...data.record import Record
from ...engines.distributed import gather_in_order, num_processes, rank, unwrap
from ...features.bags import FeatureBagDataset
from ...networks.probabilities import tumour_probability

_AT_ONCE = 8192
# A feature's share of tissue counts in so many parts.
_PARTS = 256


class FeatureMaps:
    """Probabilities of every stored feature on tissue, in place of `SplitMaps`.

    A map interpolates between features; here each counts as it is, by its share of tissue.

    Args:
        dataset: of the slides.
        network: on features, with one answer for each of them.
        device: to compute on.
    """

    def __init__(self, dataset: FeatureBagDataset, network: nn.Module, device: torch.device | str) -> None:
        self.dataset, self.network, self.device = dataset, network, torch.device(device)

    @property
    def records(self) -> Sequence[Record]:
        """Records of the slides."""
        return self.dataset.data

    def tissue_histograms(self) -> list[Tensor]:
        """The amount of tissue with each of a map's values, for every slide: int64 ``(256,)``, in 256ths of a feature's area."""
        share = range(rank(), len(self.dataset), num_processes())
        return gather_in_order([self._histogram(index) for index in share])

    @torch.inference_mode()
    def _histogram(self, index: int) -> Tensor:
        network = unwrap(self.network).to(self.device).eval()
        features, shares = self.dataset.all_of(index)
        probabilities = [tumour_probability(network(part.to(self.device))).reshape(-1).cpu() for part in features.split(_AT_ONCE)]
        values = (torch.cat(probabilities) * 255).round().long()
        return torch.zeros(256, dtype=torch.int64).index_add_(0, values, (shares * _PARTS).round().long())
