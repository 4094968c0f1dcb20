"""The documentation as a site: ``sphinx-build -W -c docs . site`` (packages: requirements-docs.txt).

Pages stay plain Markdown that is read where it lies; this file adds only the order in which the side bar shows them.
"""

from sphinx.application import Sphinx

project = "Weakly supervised histopathology"
author = "The contributors"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "bundles/*.md",
    "bundles/*/docs/README.md",
    "bundles/*/models/*/README.md",
    "s*/README.md",
]
myst_heading_anchors = 4
html_theme = "furo"
html_title = project

_SIDE_BAR = {
    "Decide": [
        "docs/choose",
        "docs/results",
        "docs/results_from_pixels",
        "docs/results_image_labels",
        "docs/results_rough_areas",
        "docs/results_slide_labels",
        "docs/results_generated",
        "docs/compare",
        "docs/papers",
    ],
    "Begin": ["docs/install", "docs/data", "docs/masks", "docs/data_sets", "docs/train"],
    "Encoders": ["docs/encoders", "docs/features", "docs/features_of_other_programs"],
    "Slides": ["docs/maps", "docs/view", "docs/viewer", "docs/outputs"],
    "Build on it": ["docs/python", "docs/mlflow", "docs/cluster", "docs/reliability"],
    "Look up": ["docs/troubleshooting", "docs/glossary", "CHANGELOG"],
    "Bundles": ["bundles/README", "bundles/*/docs/README", "bundles/*/models/*/README"],
    "Take part": ["CONTRIBUTING", "shared/README", "scripts/README"],
}


def setup(app: Sphinx) -> None:
    """Have Sphinx call `_add_side_bar` for each page that it reads."""
    app.connect("source-read", _add_side_bar)


def _add_side_bar(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        for title, pages in _SIDE_BAR.items():
            source[0] += "\n".join(["\n```{toctree}", ":hidden:", ":glob:", f":caption: {title}", "", *pages, "```\n"])
