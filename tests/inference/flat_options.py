"""A mapper's options side by side, for tests that change one of many."""

from dataclasses import fields

from shared.inference import Compute, Outputs, Tiles, Tissue

GROUPS = {"tiles": Tiles, "tissue": Tissue, "outputs": Outputs, "compute": Compute}
OF_TISSUE = {"tissue_only": "only", "tissue_method": "method", "tissue": "cache"}


def grouped(**options):
    """The arguments of `SlideMapper` that say the same; those of no group, such as `mpp`, stay as they are."""
    tissue = {OF_TISSUE[name]: options.pop(name) for name in list(options) if name in OF_TISSUE}
    found = {"tissue": Tissue(**tissue)}
    for name, group in GROUPS.items():
        if name != "tissue":
            found[name] = group(**{field.name: options.pop(field.name) for field in fields(group) if field.name in options})
    return found | options
