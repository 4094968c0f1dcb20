"""How busy GPUs are while something runs."""

from __future__ import annotations

import shutil
import subprocess
import threading

QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
EVERY_S = 1.0


def percentages(printed: str) -> list[float]:
    """Utilisation of each GPU from the output of ``nvidia-smi``; values that are not numbers are left out.

    >>> percentages("97\\n[N/A]\\n3\\n")
    [97.0, 3.0]
    """
    return [float(word) for word in printed.split() if word.replace(".", "", 1).isdigit()]


class Utilisation:
    """Asks ``nvidia-smi`` every second while it is entered.

    Attributes:
        samples: of all GPUs, in percent.
    """

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Utilisation:
        if shutil.which(QUERY[0]) is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __str__(self) -> str:
        if not self.samples:
            return "not known: nvidia-smi gives no output"
        return f"{sum(self.samples) / len(self.samples):.0f} % on average"

    def _sample(self) -> None:
        while not self._ended.wait(EVERY_S):
            process = subprocess.run(QUERY, capture_output=True, text=True, check=False)
            self.samples += percentages(process.stdout)
