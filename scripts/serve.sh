#!/usr/bin/env bash
# Starts the MONAI Label server, after installing what it needs in addition to requirements.txt (0.4 GB) into .venv.
#   bash scripts/serve.sh --studies slides/ [--models camel,...]     see scripts/serve.py --help
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
source "$ROOT/scripts/environment.sh"
# Paths in the arguments are relative to the caller's folder.
pushd "$ROOT" > /dev/null
prepare_environment requirements-monailabel.txt requirements-monailabel-no-deps.txt
popd > /dev/null
exec "$PYTHON" "$ROOT/scripts/serve.py" "$@"
