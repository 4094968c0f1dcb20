#!/usr/bin/env bash
# Runs all checks of this repository, including the set-up: formatting, lint, types, tests.
#   bash scripts/test.sh                 everything: 30 minutes on 2 cores
#   bash scripts/test.sh --fast          without the tests that are marked slow: 7 minutes on 2 cores
#   bash scripts/test.sh tests/wsi -x    the checks, then pytest with these arguments
#   bash scripts/test.sh --encoders      only the tests of encoders, in a separate environment with timm and a later torch
# The tests that need real tiles and slides run when WSI_TEST_DATA names their folder.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
if [ "${1:-}" = --encoders ]; then
    shift
    prepare_encoders_environment
    export OMP_NUM_THREADS=1
    exec "$PYTHON" -m pytest -n 2 --dist loadfile tests/encoders \
        tests/bundles/test_every_encoder.py::test_a_bundle_learns_with_a_model_of_timm "$@"
fi
prepare_environment requirements-dev.txt requirements-monailabel-no-deps.txt
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" --durations 5 --durations-min 3 "$@"
fi

"$PYTHON" -m ruff format --check shared scripts tests
"$PYTHON" -m ruff check shared scripts tests
bash scripts/types.sh
# One thread per process, because two test processes with two threads each slow each other down.
export OMP_NUM_THREADS=1
# The last line printed is pytest's own.
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
