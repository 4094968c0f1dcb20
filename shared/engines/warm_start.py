"""CAMEL's warm start: what its later stages take over from Max-Max, and what follows from that for their training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_STAGE = "max_max"


@dataclass(frozen=True)
class WarmStart:
    """The weights with which Max-Min, retrain and the segmentation begin, and the settings that follow from them.

    With it they begin with Max-Max's weights, at lower learning rates; Max-Min trains for a share of the epochs and keeps the
    statistics of its batch normalisation, lest those of its picks wash out what Max-Max has learned. Without it every stage
    begins from scratch and is trained as Max-Max is, as in the paper.

    Args:
        enabled: whether to.
        output_dir: of the run; each stage has a folder in it.
        norm: of Max-Max, see `shared.networks.InstanceClassifier`.
        lr: Max-Max's learning rate.
        num_epochs: of Max-Max.
        warm_max_min_lr: of Max-Min from its weights: smaller steps than from scratch, since the weights find tumour already.
        warm_retrain_lr: of retrain from its weights.
        max_min_share: of Max-Max's epochs that Max-Min takes from its weights.
        backbones: ResNets of the classifiers and of the segmentation.
    """

    enabled: bool
    output_dir: str | Path
    norm: str | None
    lr: float
    num_epochs: int
    backbones: Sequence[str]
    warm_max_min_lr: float
    warm_retrain_lr: float
    max_min_share: float

    @property
    def max_min_norm(self) -> str | None:
        return "frozen" if self.enabled and self.norm == "batch" else self.norm

    @property
    def max_min_lr(self) -> float:
        return self.warm_max_min_lr if self.enabled else self.lr

    @property
    def max_min_epochs(self) -> int:
        return max(1, int(self.num_epochs * self.max_min_share)) if self.enabled else self.num_epochs

    @property
    def retrain_lr(self) -> float:
        return self.warm_retrain_lr if self.enabled else self.lr

    @property
    def segmentation_weights(self) -> str | None:
        """Max-Max's weights, whose ResNet a segmentation with the same begins with; None for none."""
        return self.weights(FIRST_STAGE) if len(set(self.backbones)) == 1 else None

    def weights(self, stage: str = FIRST_STAGE) -> str | None:
        """The file of another stage's weights to begin with; None without a warm start."""
        return f"{self.output_dir}/{stage}/model.pt" if self.enabled else None
