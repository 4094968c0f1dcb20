"""Retraining on labelled instances while whole images constrain the same network."""

from torch import Tensor, nn

from .selected_instance import binary_cross_entropy

__all__ = ["ConstrainedRetrainLoss", "constrained_retrain_loss", "image_constraint_loss"]


def image_constraint_loss(max_max_logits: Tensor, max_min_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the images' labels with their Max-Max pick plus that with their Max-Min pick.

    For tumour images both criteria pick one instance, which then counts twice, as in the paper.

    Args:
        max_max_logits: tumour logit of the instance that Max-Max picks, ``(num_images,)``.
        max_min_logits: the same for Max-Min, ``(num_images,)``.
        labels: image labels 0 or 1, ``(num_images,)``.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if the shapes differ or there is no image.

    Reference:
        Xu et al., CAMEL, ICCV 2019, equation 5: the sum over both criteria, here of the mean over the images.

    >>> import torch
    >>> image_constraint_loss(torch.zeros(4), torch.zeros(4), torch.tensor([0, 1, 1, 0]))
    tensor(1.3863)
    """
    return binary_cross_entropy(max_max_logits, labels) + binary_cross_entropy(max_min_logits, labels)


def constrained_retrain_loss(
    instance_logits: Tensor,
    instance_labels: Tensor,
    picked_logits: Tensor,
    image_labels: Tensor,
    constraint_weight: float = 1.0,
    retrain_weight: float = 1.0,
) -> Tensor:
    """``constraint_weight * image_constraint_loss + retrain_weight * cross entropy of the instances``.

    Args:
        instance_logits: tumour logits of the constructed data set's instances, ``(num_instances,)``.
        instance_labels: their labels 0 or 1, ``(num_instances,)``.
        picked_logits: tumour logits of whole images' picks, ``(num_images, 2)``: Max-Max, Max-Min.
        image_labels: labels of these images 0 or 1, ``(num_images,)``.
        constraint_weight: w1 of the paper, >= 0.
        retrain_weight: w2 of the paper, >= 0. The paper sets w1 = w2, without a value: 1.

    Returns:
        scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: if a shape does not fit, or there is no instance or no image.

    Reference:
        Xu et al., CAMEL, ICCV 2019, equations 4 to 6, with means where the paper sums.

    >>> import torch
    >>> constrained_retrain_loss(torch.zeros(3), torch.ones(3), torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor(2.0794)
    """
    constraint = image_constraint_loss(*_picks(picked_logits), image_labels)
    return constraint_weight * constraint + retrain_weight * binary_cross_entropy(instance_logits, instance_labels)


def _picks(logits: Tensor) -> tuple[Tensor, Tensor]:
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(f"picked_logits must be (num_images, 2); got {tuple(logits.shape)}")
    return logits[:, 0], logits[:, 1]


class ConstrainedRetrainLoss(nn.Module):
    """Module of `constrained_retrain_loss`.

    Args:
        constraint_weight: w1 of the paper, >= 0.
        retrain_weight: w2 of the paper, >= 0.

    Raises:
        ValueError: if a weight is negative.
    """

    def __init__(self, constraint_weight: float = 1.0, retrain_weight: float = 1.0) -> None:
        super().__init__()
        if constraint_weight < 0 or retrain_weight < 0:
            raise ValueError(f"weights must be >= 0; got constraint_weight={constraint_weight}, retrain_weight={retrain_weight}")
        self.constraint_weight = constraint_weight
        self.retrain_weight = retrain_weight

    def forward(self, instance_logits: Tensor, instance_labels: Tensor, picked_logits: Tensor, image_labels: Tensor) -> Tensor:
        """Shapes ``(num_instances,)`` twice, ``(num_images, 2)``, ``(num_images,)`` to a scalar."""
        return constrained_retrain_loss(
            instance_logits, instance_labels, picked_logits, image_labels, self.constraint_weight, self.retrain_weight
        )

    def terms(
        self, instance_logits: Tensor, instance_labels: Tensor, picked_logits: Tensor, image_labels: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """The two losses, each as a sum and how many images or instances it is of, where several processes share a step."""
        means = (
            self.constraint_weight * image_constraint_loss(*_picks(picked_logits), image_labels),
            self.retrain_weight * binary_cross_entropy(instance_logits, instance_labels),
        )
        counts = [mean.new_full((), len(of)) for mean, of in zip(means, (image_labels, instance_labels), strict=True)]
        return [(mean * count, count) for mean, count in zip(means, counts, strict=True)]
