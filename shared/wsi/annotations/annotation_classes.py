"""The class index of each annotation: by the names of all classes, or of the tumour's alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from .annotation import Annotation
from .reading import plain_name

LARGEST_NUM_CLASSES = 255
# QuPath's word for annotations without class.
UNCLASSIFIED = "Unclassified"
# QuPath's own class of regions of interest; and no class at all. They say nothing of the tissue.
_NEUTRAL_NAMES = ("region*", "")
# What is no tumour, in QuPath's words and in common words: not taken for it where nothing else is drawn.
_NO_TUMOUR = frozenset(
    {"region*", "stroma", "immune cells", "necrosis", "other", "negative", "normal", "benign", "background", "roi", "tissue"}
)
_MAX_NAMED = 10


def class_indices(
    annotations: Sequence[Annotation],
    num_classes: int = 2,
    class_names: Sequence[str] | None = None,
    tumour_classes: Collection[str] | None = None,
    needs_tumour: bool = False,
) -> list[int | None]:
    """The class index of each annotation; None if it has no meaning, as for exclusions.

    Args:
        annotations: of one slide.
        num_classes: classes, from 2 to 255.
        class_names: the class of each index; case and blanks do not count. An annotation has the first index that its own class
            or one of its parents has. None with two classes, which are not tumour and tumour.
        tumour_classes: without `class_names`: the classes, or parents of classes, that are tumour; ``Unclassified`` for
            annotations without class. Areas of all other classes are 0, and so cut from the tumour that surrounds them, but for
            annotations without class and QuPath's ``Region*``, which are passed over. None where all annotations are of one
            class, named or not: that is tumour, unless its name says that it is not (``Stroma``, ``Region*``).
        needs_tumour: with `tumour_classes`: where something is annotated, some of it must be tumour.

    Raises:
        ValueError: if `num_classes` is out of range, `class_names` are not as many or not distinct, an annotation has another
            class, or there are several classes and nothing says which is tumour; listing what was found.
    """
    check_classes(num_classes, class_names)
    if class_names is not None:
        return _indices_by_name(annotations, class_names)
    if num_classes > 2:
        raise ValueError(f"annotations of {num_classes} classes need class_names: a name for each index from 0")
    if tumour_classes is not None:
        return _tumour_indices(annotations, tumour_classes, needs_tumour)
    bases = {plain_name(annotation.base_class) for annotation in annotations if not annotation.is_exclusion}
    if len(bases) > 1 or not bases.isdisjoint(_NO_TUMOUR):
        raise ValueError(
            f"expected annotations of a single class, which is tumour; found {class_counts(annotations)}. Name the classes "
            "that are tumour in the manifest's column `tumour_classes` (several with | between them), or with the key or "
            "option of that name"
        )
    return [None if annotation.is_exclusion else 1 for annotation in annotations]


def class_counts(annotations: Sequence[Annotation]) -> str:
    """The classes of annotations and how many there are of each, exclusions left out, for messages.

    >>> from shapely.geometry import box
    >>> names = ["Stroma", "Tumor", "Tumor", ""]
    >>> class_counts([Annotation(box(0, 0, 1, 1), name, False, "", "") for name in names])
    'Tumor (2), Stroma (1), Unclassified (1)'
    """
    counts = Counter(annotation.class_name for annotation in annotations if not annotation.is_exclusion)
    shown = [f"{name or UNCLASSIFIED} ({count})" for name, count in counts.most_common()]
    more = f" and {len(shown) - _MAX_NAMED} more" if len(shown) > _MAX_NAMED else ""
    return ", ".join(shown[:_MAX_NAMED]) + more


def _indices_by_name(annotations: Sequence[Annotation], class_names: Sequence[str]) -> list[int | None]:
    index_of = {plain_name(name): index for index, name in enumerate(class_names)}
    indices: list[int | None] = []
    for annotation in annotations:
        known = [index_of[name] for name in map(plain_name, annotation.names) if name in index_of]
        if not known and not annotation.is_exclusion:
            name = f"the class {annotation.class_name!r}" if annotation.class_name else "no class"
            raise ValueError(f"{annotation.place} has {name}, expected one of {', '.join(map(repr, class_names))} (class_names)")
        indices.append(None if annotation.is_exclusion else known[0])
    return indices


def _tumour_indices(annotations: Sequence[Annotation], tumour_classes: Collection[str], needs_tumour: bool) -> list[int | None]:
    if isinstance(tumour_classes, str) or not tumour_classes:
        raise ValueError(f"tumour_classes must be a list of names, got {tumour_classes!r}")
    wanted = {"" if plain_name(name) == plain_name(UNCLASSIFIED) else plain_name(name) for name in tumour_classes}
    indices = [_tumour_index(annotation, wanted) for annotation in annotations]
    drawn = [annotation for annotation in annotations if not annotation.is_exclusion]
    if needs_tumour and drawn and 1 not in indices:
        raise ValueError(
            f"expected annotations of the tumour's classes {', '.join(map(repr, tumour_classes))} (tumour_classes), found "
            f"{class_counts(drawn)}. Correct the names; a slide without tumour has label 0"
        )
    return indices


def _tumour_index(annotation: Annotation, wanted: set[str]) -> int | None:
    if annotation.is_exclusion:
        return None
    if not wanted.isdisjoint(map(plain_name, annotation.names)):
        return 1
    return None if is_neutral(annotation) else 0


def is_neutral(annotation: Annotation) -> bool:
    """Whether an annotation has no meaning for the tissue: it has no class, or QuPath's for regions of interest, ``Region*``."""
    return plain_name(annotation.base_class) in _NEUTRAL_NAMES


def check_classes(num_classes: int, class_names: Sequence[str] | None) -> None:
    """Check that classes and their names agree.

    Raises:
        ValueError: as `class_indices`.
    """
    if not 2 <= num_classes <= LARGEST_NUM_CLASSES:
        raise ValueError(f"num_classes must be from 2 to {LARGEST_NUM_CLASSES}, got {num_classes}")
    if class_names is None:
        return
    distinct = {plain_name(name) for name in class_names}
    if isinstance(class_names, str) or not len(distinct) == len(class_names) == num_classes:
        raise ValueError(f"class_names must be {num_classes} different names, got {class_names!r}")
