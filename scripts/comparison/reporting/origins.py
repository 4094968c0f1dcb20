"""Which call made what of a comparison: rows that are kept from earlier calls, and trainings that were resumed, are of others."""

from __future__ import annotations

from collections.abc import Sequence

from ..rows.method_row import MethodRow
from ..scores.ceilings import CEILINGS
from ..trainings.origin import Origin

NOT_RECORDED = "a call that is not recorded, of an older version"


def made_by(rows: Sequence[MethodRow]) -> list[tuple[Origin | None, str]]:
    """Every call that trained or mapped, with what it made; None for rows of versions that noted none. Ceilings are of no call.

    >>> first, second = Origin("a"), Origin("b")
    >>> rows = [MethodRow("camel", "CAMEL", seeds=[0, 1], origins=[[first], [first, second]]), MethodRow("x", "X", seeds=[0])]
    >>> [(origin and origin.command, what) for origin, what in made_by(rows)]
    [('a', 'CAMEL (seed 0, seed 1 in part)'), ('b', 'CAMEL (seed 1 in part)'), (None, 'X')]
    """
    made: dict[Origin | None, list[str]] = {}
    for row in rows:
        if row.key in CEILINGS:
            continue
        calls = [calls or [None] for calls in row.origins] or [[None] for _ in row.seeds]
        for origin in dict.fromkeys(one for of_seed in calls for one in of_seed):
            made.setdefault(origin, []).append(row.title + _seeds(row.seeds, calls, origin))
    lines = [(origin, ", ".join(titles)) for origin, titles in made.items()]
    return [(lines[0][0], "All methods")] if len(lines) == 1 else lines


def _seeds(seeds: Sequence[int], calls: Sequence[Sequence[Origin | None]], origin: Origin | None) -> str:
    """Which of a row's seeds a call made, and which in part; nothing where it made them all alone."""
    if all(list(of_seed) == [origin] for of_seed in calls):
        return ""
    named = [
        f"seed {seed}" + (" in part" if len(own) > 1 else "") for seed, own in zip(seeds, calls, strict=True) if origin in own
    ]
    return f" ({', '.join(named)})"
