# Sourced by demo.sh, test.sh and serve.sh: builds a virtual environment in .venv with requirements.txt (and, for the tests,
# requirements-dev.txt) in the versions of constraints.txt. It is built again only if one of these files has changed.
#
# BASE_REQUIREMENTS=requirements-cuda12.txt replaces requirements.txt on machines with a driver for CUDA 12.
#
#   prepare_environment requirements.txt [FILE]   ->   sets PYTHON; the packages in FILE are installed without dependencies

# MONAI and MLflow need a user name and a home when imported; a container run under a numeric user has neither.
id -un >/dev/null 2>&1 || export LOGNAME="${LOGNAME:-user$(id -u)}"
export HOME="${HOME:-${TMPDIR:-/tmp}}"

python_for_venv() {
    local candidate
    if [ -n "${PYTHON_FOR_VENV:-}" ]; then
        echo "$PYTHON_FOR_VENV"
        return 0
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "No Python 3.10 to 3.14 with venv found: install one (Debian: python3-venv) or set PYTHON_FOR_VENV." >&2
    return 1
}

# require_free_gb N PYTHON: an error where an environment of N GB would not fit. Without this check pip stops after minutes, in the
# middle, and does not say how much it needs.
require_free_gb() {
    "$2" - "$1" "$PWD" "${TMPDIR:-/tmp}" <<'END' >&2
import os, shutil, sys

installed, folder, temporary = int(sys.argv[1]), *sys.argv[2:]
# What pip downloads lies in the temporary folder until all of it is installed.
needed = {folder: installed, temporary: 4}
if os.stat(folder).st_dev == os.stat(temporary).st_dev:
    needed = {folder: installed + 4}
for where, gigabytes in needed.items():
    free = shutil.disk_usage(where).free / 1e9
    if free < gigabytes:
        sys.exit(
            f"error: installing takes {gigabytes} GB in {where}, and {free:.0f} GB are free there: delete something, move this "
            "checkout, or name a larger folder for temporary files in TMPDIR"
        )
END
}

# Builds .venv-encoders with requirements-encoders-test.txt, independent of .venv, and sets PYTHON to its interpreter.
prepare_encoders_environment() {
    local stamp=.venv-encoders/installed digest interpreter
    interpreter=$(python_for_venv) || return 1
    PYTHON=$PWD/.venv-encoders/bin/python
    digest=$(cat requirements-encoders*.txt | cksum)
    if [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && "$PYTHON" -c 'import torch, timm' 2>/dev/null; then
        echo "Environment .venv-encoders is up to date with requirements-encoders-test.txt."
        return 0
    fi
    echo "Installing requirements-encoders-test.txt into .venv-encoders (once; it takes 8 GB) ..."
    if [ ! -x "$PYTHON" ]; then
        require_free_gb 8 "$interpreter" || return 1
        "$interpreter" -m venv --clear .venv-encoders
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements-encoders-test.txt
    printf '%s\n' "$digest" > "$stamp"
}

prepare_environment() {
    local requirements=$1 base=${BASE_REQUIREMENTS:-requirements.txt} stamp interpreter digest
    [ "$requirements" != requirements.txt ] || requirements=$base
    interpreter=$(python_for_venv) || return 1
    PYTHON=$PWD/.venv/bin/python
    stamp=.venv/installed-$(basename "$requirements" .txt)
    # A digest of all files, because one includes another.
    digest=$(cat requirements*.txt constraints.txt | cksum)$base
    if [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && "$PYTHON" -c 'import torch, monai' 2>/dev/null; then
        echo "Environment .venv is up to date with $requirements."
        return 0
    fi
    echo "Installing $requirements into .venv (once; several minutes on a slow connection) ..."
    if [ ! -x "$PYTHON" ]; then
        require_free_gb 7 "$interpreter" || return 1
        "$interpreter" -m venv --clear .venv
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$base" -r "$requirements" -c constraints.txt
    [ $# -lt 2 ] || "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -r "$2"
    printf '%s\n' "$digest" > "$stamp"
}
