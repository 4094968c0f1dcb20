#!/usr/bin/env bash
# Starts the MONAI Label server; what it needs on top of requirements.txt (0.4 GB) is installed into .venv first.
#   bash scripts/serve.sh --studies slides/ [--models camel,...]     see scripts/serve.py --help
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
source "$ROOT/scripts/environment.sh"
# Paths of the arguments are the caller's.
pushd "$ROOT" > /dev/null
prepare_environment requirements-monailabel.txt requirements-monailabel-no-deps.txt
popd > /dev/null
exec "$PYTHON" "$ROOT/scripts/serve.py" "$@"
