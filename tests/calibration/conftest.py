"""The images, networks and slides of the trainings and evaluations."""

from tests.engines.conftest import make_classifier, records  # noqa: F401
from tests.evaluation.conftest import cohort, cohort_records, paint_finder  # noqa: F401
