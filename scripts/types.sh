#!/usr/bin/env bash
# Checks the types with the mypy of .venv (built by `bash scripts/test.sh`): for test.sh and the hooks of pre-commit.
set -euo pipefail
cd "$(dirname "$0")/.."
# The last numpy and pandas for Python 3.10 have older types, in which some of ours are wrong.
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    exec .venv/bin/python -m mypy
fi
echo "Types are not checked: this needs Python 3.11 or later."
