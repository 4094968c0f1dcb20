#!/usr/bin/env bash
# Checks the types with mypy in .venv (built by `bash scripts/test.sh`); called by test.sh and the pre-commit hooks.
set -euo pipefail
cd "$(dirname "$0")/.."
# The last numpy and pandas for Python 3.10 have older type stubs, which do not fit this code.
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    exec .venv/bin/python -m mypy
fi
echo "Types are not checked: this needs Python 3.11 or later."
