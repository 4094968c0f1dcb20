"""Ports for servers that are told theirs before they start."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that is free, and stays so until its server is there, or between two servers.

    It is not of those that the system gives to connections and to servers without a port of their own, and drawn by chance, as
    other processes may look for one at the same time.
    """
    lowest = int(_RANGE.read_text().split()[0]) if _RANGE.is_file() else 32768
    drawn = random.SystemRandom()
    for port in [*(drawn.randrange(20_000, lowest) for _ in range(100 * (lowest > 20_000))), 0]:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise OSError("there is no free port")
