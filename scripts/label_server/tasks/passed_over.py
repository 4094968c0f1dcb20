"""Slides that cannot be proposed: they take no other slide's place, and are not mistaken for there being nothing to label."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from ..refusal import Refusal

logger = logging.getLogger(__name__)
_Use = TypeVar("_Use")


class PassedOver:
    """The slides that one request has passed over, and why."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def usable(self, images: Iterable[str], use: Callable[[str], _Use], most: int) -> dict[str, _Use]:
        """The first slides that can be used, and what `use` gives for each. Those for which it fails are logged and do not count.

        Args:
            images: ids of the slides, in their turn.
            use: function of an id; it raises a ValueError or an OSError for a slide that cannot be used.
            most: number of slides.
        """
        found: dict[str, _Use] = {}
        for image in images:
            if len(found) >= most:
                break
            try:
                found[image] = use(image)
            except (ValueError, OSError) as error:
                logger.warning("%s is not proposed: %s", image, error)
                self._reasons[image] = str(error)
        return found

    def check(self) -> None:
        """Check that no slide was passed over, where none is left to propose.

        Raises:
            Refusal: with the number of slides, and the reason of the first.
        """
        if self._reasons:
            image, reason = next(iter(self._reasons.items()))
            raise Refusal(
                f"no slide can be proposed, as {len(self._reasons)} cannot be used: repair them, or take them out of the studies "
                f"folder. The first is {image}: {reason}"
            )
