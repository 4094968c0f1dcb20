#!/usr/bin/env bash
# The whole check of this repository, all set-up included: formatting, lint, types, tests.
#   bash scripts/test.sh                 everything
#   bash scripts/test.sh --fast          without the tests that are marked slow: under 3 minutes on 2 cores
#   bash scripts/test.sh tests/wsi -x    the checks, then pytest with these arguments
#   bash scripts/test.sh --encoders      the tests of encoders alone, in an environment of their own that has timm and a later torch
# The tests that need real tiles and slides run when WSI_TEST_DATA names their folder.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
if [ "${1:-}" = --encoders ]; then
    shift
    prepare_encoders_environment
    export OMP_NUM_THREADS=1
    exec "$PYTHON" -m pytest -n 2 --dist loadfile tests/encoders "$@"
fi
prepare_environment requirements-dev.txt requirements-monailabel-no-deps.txt
if [ "${1:-}" = --fast ]; then
    shift
    set -- -m "not slow" --durations 5 --durations-min 3 "$@"
fi

"$PYTHON" -m ruff format --check shared scripts tests
"$PYTHON" -m ruff check shared scripts tests
bash scripts/types.sh
# One thread a process: two test processes that each spin on two cores crawl.
export OMP_NUM_THREADS=1
# The last line printed is pytest's own.
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
