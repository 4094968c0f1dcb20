#!/usr/bin/env bash
# Starts the MONAI Label server in a virtual environment of its own, which is built first and again only when its requirements change.
#   bash scripts/serve.sh --studies slides/ [--models camel,...]     see scripts/serve.py --help
#   bash scripts/serve.sh --install_only
# The environment is .venv-monailabel, or the folder in MONAILABEL_VENV. It takes about 9 GB, most of it a CUDA build of torch; on a
# machine without a GPU far less with  TORCH_INDEX=https://download.pytorch.org/whl/cpu  (torch and torchvision from there).
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
VENV=${MONAILABEL_VENV:-$ROOT/.venv-monailabel}
PYTHON=$VENV/bin/python
REQUIREMENTS=("$ROOT/requirements-monailabel.txt" "$ROOT/requirements-monailabel-no-deps.txt")

# MONAI Label's client imports cgi, which Python 3.13 no longer has.
find_interpreter() {
    for candidate in ${PYTHON_FOR_VENV:-python3 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "No Python 3.10, 3.11 or 3.12 with venv found: install one (Debian: python3-venv) or set PYTHON_FOR_VENV." >&2
    return 1
}

DIGEST=$(cat "${REQUIREMENTS[@]}" | sha256sum | cut -d' ' -f1)
if [ ! -x "$PYTHON" ] || [ "$(cat "$VENV/installed" 2>/dev/null)" != "$DIGEST" ]; then
    echo "Installing requirements-monailabel.txt into $VENV (once; many minutes on a slow line) ..."
    [ -x "$PYTHON" ] || "$(find_interpreter)" -m venv --clear "$VENV"
    PIP=("$PYTHON" -m pip install --quiet --disable-pip-version-check)
    if [ -n "${TORCH_INDEX:-}" ]; then
        "${PIP[@]}" --index-url "$TORCH_INDEX" $(grep -E '^torch(vision)?==' "${REQUIREMENTS[0]}")
    fi
    "${PIP[@]}" -r "${REQUIREMENTS[0]}"
    "${PIP[@]}" --no-deps -r "${REQUIREMENTS[1]}"
    "$PYTHON" -c 'import monailabel.interfaces.app'
    printf '%s\n' "$DIGEST" > "$VENV/installed"
fi
if [ "${1:-}" = --install_only ]; then
    echo "The environment $VENV is ready."
    exit 0
fi
MONAILABEL_PYTHON=$PYTHON exec "$PYTHON" "$ROOT/scripts/serve.py" "$@"
