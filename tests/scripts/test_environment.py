"""scripts/environment.sh: what it says before it installs anything."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "environment.sh"


def require_free_gb(gigabytes: int, folder: Path) -> subprocess.CompletedProcess:
    command = f"set -euo pipefail; source {SCRIPT}; require_free_gb {gigabytes} {sys.executable}"
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)


def test_a_full_disk_is_said_before_the_installation(tmp_path):
    refused = require_free_gb(1_000_000, tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    # Temporary files lie on the same file system (4 GB more), or are asked for apart.
    assert any(f"error: installing takes {total} GB in {tmp_path}, and " in refused.stderr for total in (1_000_004, 1_000_000))
    assert "GB are free there: delete something" in refused.stderr
    # Where nothing need be installed, only the downloads have to fit.
    accepted = require_free_gb(-4, tmp_path)
    assert (accepted.returncode, accepted.stderr) == (0, "")
