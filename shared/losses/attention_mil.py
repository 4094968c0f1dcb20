"""Cross entropy of slides, and of the instances that attention ranks in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["INSTANCE_LOSSES", "AttentionMILLoss", "attention_instance_loss", "smooth_svm_loss"]

INSTANCE_LOSSES = ("svm", "cross_entropy")


def smooth_svm_loss(scores: Tensor, targets: Tensor, margin: float = 1.0, temperature: float = 1.0) -> Tensor:
    """The smooth top-1 SVM loss: by how much the scores of other classes violate the margin of the right class.

    ``temperature * log(sum_j exp((margin * [j != y] + s_j - s_y) / temperature))``, its mean over the instances. As the
    temperature goes to 0 it becomes the hinge loss of a multi-class SVM; without a margin, at 1, it is the cross entropy.

    Args:
        scores: of the classes, ``(n, C)``.
        targets: class indices ``(n,)``.
        margin: the papers' alpha.
        temperature: the papers' tau, above 0.

    Reference:
        Berrada et al., Smooth loss functions for deep top-k classification, ICLR 2018, equation 6 with k = 1; in CLAM (Lu et
        al., 2021, Methods, instance-level clustering) with alpha and tau 1.

    >>> smooth_svm_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor(1.3133)
    """
    is_other = 1 - F.one_hot(targets, scores.shape[1]).to(scores.dtype)
    return F.cross_entropy((scores + margin * is_other) / temperature, targets) * temperature


def attention_instance_loss(
    instance_scores: Tensor, attention_logits: Tensor, slide_label: Tensor, num_instances: int = 8, kind: str = "svm"
) -> Tensor:
    """CLAM's instance-level clustering of one slide: its most attended instances are of its class, its least attended are not.

    The classifier of the slide's own class learns them as "in" (1) and "out" (0); that of the other class has no part in it.

    Args:
        instance_scores: ``(n, 2, 2)``: of each instance, for each class of slides (normal, tumour), its scores of "out" and
            "in".
        attention_logits: ``(n,)``.
        slide_label: 0 or 1, a tensor of one element.
        num_instances: B: so many of either kind, half of the slide's at most, so that none is both.
        kind: of the loss: "svm" for `smooth_svm_loss`, or "cross_entropy".

    Returns:
        scalar, the mean over the instances; 0 for a slide of one instance.

    Raises:
        ValueError: if the shapes do not fit, B is below 1, or there is no such loss.

    Reference:
        Lu et al., CLAM, Nature Biomedical Engineering 5, 2021, Methods, instance-level clustering, for classes that exclude
        each other no more than normal and tumour do (`subtyping` of the released code is off); B is 8 there.
    """
    num = len(attention_logits)
    if instance_scores.shape != (num, 2, 2) or attention_logits.ndim != 1:
        raise ValueError(
            f"need instance_scores (n, 2, 2) and attention_logits (n,); got {tuple(instance_scores.shape)}, "
            f"{tuple(attention_logits.shape)}"
        )
    _check_clustering(num_instances, kind)
    count = min(num_instances, num // 2)
    if count == 0:
        return instance_scores.sum() * 0
    attention = attention_logits.detach()
    chosen = torch.cat([attention.topk(count).indices, attention.topk(count, largest=False).indices])
    # Without asking for the label's value, which would wait for the device.
    own = torch.as_tensor(slide_label, device=instance_scores.device).reshape(()).gt(0).long()
    scores = instance_scores[chosen].index_select(1, own[None])[:, 0].float()
    targets = torch.arange(2 * count, device=scores.device).lt(count).long()
    return smooth_svm_loss(scores, targets) if kind == "svm" else F.cross_entropy(scores, targets)


def _check_clustering(num_instances: int, kind: str | None) -> None:
    if num_instances < 1:
        raise ValueError(f"num_instances must be at least 1, got {num_instances}")
    if kind not in INSTANCE_LOSSES:
        raise ValueError(f"instance_loss must be one of {', '.join(INSTANCE_LOSSES)} or null, got {kind!r}")


class AttentionMILLoss(nn.Module):
    """Cross entropy of the slides' logits with their labels and, by choice, `attention_instance_loss`.

    ``(1 - instance_weight) * slides + instance_weight * instances``; without instances the former alone.

    Args:
        instance_loss: "svm" or "cross_entropy", see `attention_instance_loss`; None for attention without clustering.
        instance_weight: share of the instances, the paper's c2; c1 is what is left of 1, as in the released code.
        num_instances: see `attention_instance_loss`.

    Raises:
        ValueError: for a value out of range.

    Reference:
        Ilse et al., ICML 2018, section 2; Lu et al., 2021, Methods, with c1 = 0.7 and c2 = 0.3 in the released code.
    """

    def __init__(self, instance_loss: str | None = None, instance_weight: float = 0.3, num_instances: int = 8) -> None:
        super().__init__()
        if instance_loss is not None:
            _check_clustering(num_instances, instance_loss)
        if not 0 <= instance_weight < 1:
            raise ValueError(f"instance_weight must be a share in [0, 1), got {instance_weight}")
        self.instance_loss, self.instance_weight, self.num_instances = instance_loss, instance_weight, num_instances

    def forward(
        self,
        slide_labels: Tensor,
        slide_logits: Tensor,
        attention_logits: Tensor,
        instance_scores: Tensor | None = None,
    ) -> Tensor:
        """The mean over slides, float32.

        Args:
            slide_labels: ``(B,)``, 0 or 1.
            slide_logits: ``(B,)``.
            attention_logits: ``(B, n)``.
            instance_scores: ``(B, n, 2, 2)``, where instances are learned from.

        Raises:
            ValueError: if instances are to be learned from and the network does not classify them.
        """
        slides = F.binary_cross_entropy_with_logits(slide_logits.float(), slide_labels.float())
        if self.instance_loss is None:
            return slides
        if instance_scores is None:
            raise ValueError(
                "the network has no instance classifiers: set its instance_classifiers, or set instance_loss to null"
            )
        per_slide = [
            attention_instance_loss(*slide, self.num_instances, self.instance_loss)
            for slide in zip(instance_scores, attention_logits, slide_labels, strict=True)
        ]
        return (1 - self.instance_weight) * slides + self.instance_weight * torch.stack(per_slide).mean()
