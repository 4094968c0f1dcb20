"""How well a tile classifier ranks the slides and tiles of a validation set."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import MetricUsage
from torch import Tensor

from .ranking import roc_auc

__all__ = ["BagRanking", "bag_scores", "top_share", "top_share_mean", "top_share_of_histogram"]


def top_share(scores: Tensor, share: float) -> Tensor:
    """The largest scores of a bag: ``floor(n * share)`` of ``(n,)``, at least one.

    >>> top_share(torch.tensor([0.1, 0.9, 0.5, 0.7]), share=0.5)
    tensor([0.9000, 0.7000])
    """
    count = max(1, int(len(scores) * share + 1e-9))
    return scores.topk(count).values


def top_share_mean(scores: Tensor, share: float) -> Tensor:
    """A slide's score: the mean of its `top_share`, which a few odd tiles do not decide as they do a maximum."""
    return top_share(scores, share).mean()


def bag_scores(
    scores: Sequence[Tensor], labels: Sequence[int], share: float, tumour_shares: Sequence[Tensor] | None = None
) -> dict[str, float]:
    """AUCs of slides and tiles.

    Args:
        scores: of each slide, the tiles' probabilities or logits ``(n,)``.
        labels: of the slides, 0 or 1.
        share: of a tumour slide's tiles that are taken for tumour, alpha.
        tumour_shares: of each slide, the tiles' true shares of tumour ``(n,)``, where known.

    Returns:
        ``slide_auc``, of `top_share_mean`; ``proxy_auc``, of the top tiles of tumour slides against all tiles of normal
        slides, which needs no mask and flatters, for the top tiles are chosen by their score; and with `tumour_shares`
        ``tile_auc``, of tiles that are tumour for the larger part against all others. NaN where a class is missing.

    Reference:
        Lerousseau et al., MICCAI 2020, chooses its threshold on a validation set without pixel labels and does not say how:
        the tiles of ``proxy_auc`` serve here.
    """
    proxies, proxy_labels = proxy_tiles(scores, labels, share)
    slides = torch.stack([top_share_mean(slide.float(), share) for slide in scores])
    result = {
        "slide_auc": float(roc_auc(slides, torch.tensor([int(label > 0) for label in labels]))),
        "proxy_auc": float(roc_auc(proxies, proxy_labels)),
    }
    if tumour_shares is not None:
        result["tile_auc"] = float(roc_auc(torch.cat(list(scores)), torch.cat(list(tumour_shares)) >= 0.5))
    return result


def proxy_tiles(scores: Sequence[Tensor], labels: Sequence[int], share: float) -> tuple[Tensor, Tensor]:
    """Scores and labels of tiles whose class follows from a slide's label: all of normal slides, the top of tumour slides."""
    chosen = [top_share(slide, share) if label > 0 else slide for slide, label in zip(scores, labels, strict=True)]
    kinds = [torch.full((len(tiles),), int(label > 0)) for tiles, label in zip(chosen, labels, strict=True)]
    return torch.cat(chosen), torch.cat(kinds)


class BagRanking(Metric):
    """`bag_scores` of a validation run, over all slides and ranks.

    Attach it as ``<beginning>_slide_auc``; the other scores are added to ``engine.state.metrics``.

    Args:
        share: alpha.
        output_transform: from ``engine.state.output`` to (logits ``(B, n)``, labels ``(B,)``, true shares ``(B, n)`` or None).
    """

    def __init__(self, share: float, output_transform: Callable = lambda output: output) -> None:
        self.share = share
        super().__init__(output_transform=output_transform)

    def reset(self) -> None:
        """Forget all slides."""
        self._slides: list[tuple[Tensor, int, Tensor | None]] = []

    def update(self, output: Sequence[Any]) -> None:
        """Take in a batch of slides."""
        logits, labels, shares = output
        for index, (slide, label) in enumerate(zip(logits, labels.tolist(), strict=True)):
            self._slides.append((slide.float().cpu(), int(label), None if shares is None else shares[index].cpu()))

    def compute(self) -> dict[str, float]:
        """The scores by name.

        Raises:
            NotComputableError: if there was no slide.
        """
        slides = self._slides
        if dist.is_available() and dist.is_initialized():
            gathered: list[list[tuple[Tensor, int, Tensor | None]]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, slides)
            slides = [slide for rank in gathered for slide in rank]
        if not slides:
            raise NotComputableError("BagRanking needs at least one slide before compute; got none")
        scores, labels, shares = zip(*slides, strict=True)
        known = None if any(share is None for share in shares) else shares
        return bag_scores(scores, labels, self.share, known)

    def attach(self, engine: Engine, name: str, usage: str | MetricUsage = "epoch_wise") -> None:
        """Attach as ``<beginning>_slide_auc``.

        Raises:
            ValueError: for another name.
        """
        if not name.endswith("_slide_auc"):
            raise ValueError(f"name must be <prefix>_slide_auc; got {name!r}")
        super().attach(engine, name, usage)

    def completed(self, engine: Engine, name: str) -> None:
        """Write every score in addition to ``slide_auc``."""
        for score, value in self.compute().items():
            engine.state.metrics[name.removesuffix("slide_auc") + score] = value


def top_share_of_histogram(histogram: Tensor, share: float) -> Tensor:
    """The highest `share` of what a histogram ``(num_values,)`` counts, at least one, as a histogram.

    >>> top_share_of_histogram(torch.tensor([5, 2, 3]), share=0.4)
    tensor([0, 1, 3])
    """
    wanted = max(1, int(float(histogram.sum()) * share + 1e-9))
    above = histogram.flip(0).cumsum(0).flip(0) - histogram
    return torch.minimum(histogram, (wanted - above).clamp(min=0))
