"""Which call made trainings and maps, or a report: its command, the state of the code, the machine and the time."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

import shared

_ROOT = Path(__file__).resolve().parents[3]
# What stands before the last @ of an address may be a password with any letters in it.
_ADDRESS = re.compile(r"^(--\w+=)?(\w[\w+.-]*://)([^\s?#]*@)")

Address = IPv4Address | IPv6Address
# Of this machine, beside names that end in .localhost.
_LOCAL_NAMES = frozenset({"", "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})


@dataclass(frozen=True)
class Origin:
    """A call of the command.

    Attributes:
        command: to be copied.
        code: version and commit.
        machine: its cores and GPU.
        began: date and time at which it began.
    """

    command: str = ""
    code: str = ""
    machine: str = ""
    began: str = ""

    @classmethod
    def read(cls, noted: Mapping[str, Any] | None) -> Origin | None:
        """The origin that was noted as a dictionary; None where none was. What a newer version notes besides is left out.

        >>> Origin.read({"command": "a", "else": 1}), Origin.read(None)
        (Origin(command='a', code='', machine='', began=''), None)
        """
        return cls(**{one.name: str(noted.get(one.name, "")) for one in fields(cls)}) if isinstance(noted, Mapping) else None

    @property
    def text(self) -> str:
        """When, by which code and where, in one line; the command is apart."""
        return ", ".join(filter(None, [self.began, self.code, self.machine]))


def this_call(arguments: Sequence[str] | None = None) -> Origin:
    """The origin of what a call makes that begins now; without arguments it is none of a command."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), {device}"
    command = "" if arguments is None else command_text(arguments)
    return Origin(command, code_text(_ROOT), machine, now_text())


def distinct(attempts: Iterable[Mapping[str, Any]]) -> list[Origin | None]:
    """The calls that these attempts are of, in their order; None for attempts whose call an older version did not note.

    >>> distinct([{"origin": {"code": "1"}}, {"origin": {"code": "1"}}, {"seconds": 2.0}])
    [Origin(command='', code='1', machine='', began=''), None]
    """
    return list(dict.fromkeys(Origin.read(attempt.get("origin")) for attempt in attempts))


def now_text() -> str:
    """Date and time, to the minute."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")


def command_text(arguments: Sequence[str]) -> str:
    """The command line, to be copied; without the password of an address.

    >>> command_text(["--methods", "a b", "--tracking_uri", "http://me:secret@host/"])
    "python scripts/compare.py --methods 'a b' --tracking_uri http://host/"
    >>> command_text(["--tracking_uri=http://me:p@ss/word@host/a"])
    'python scripts/compare.py --tracking_uri=http://host/a'
    """
    shown = [_ADDRESS.sub(r"\1\2", argument) for argument in arguments]
    return shlex.join(["python", "scripts/compare.py", *shown])


def code_text(folder: Path) -> str:
    """Version of the code, and its commit where the folder is a checkout."""
    version = f"version {shared.__version__}"
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return version
    changed = " with changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{version}, commit {commit}{changed}"


def is_server(uri: str) -> bool:
    """Whether an address of MLflow is a server, and not a database or folder.

    >>> [is_server(uri) for uri in ("https://mlflow.example.org", "http://127.0.0.1:5000", "sqlite:///out/mlruns.db")]
    [True, True, False]
    """
    return urlsplit(uri).scheme in ("http", "https")


def is_shared(uri: str) -> bool:
    """Whether an address of MLflow is a server that others reach too: not one of this machine alone, however that is written.

    >>> [is_shared(uri) for uri in ("https://mlflow.example.org", "http://10.0.0.7:5000", "sqlite:///out/mlruns.db")]
    [True, True, False]
    >>> [is_shared(f"http://{host}:5000") for host in ("localhost", "127.0.0.1", "127.0.1.1", "127.1", "0", "0.0.0.0", "[::1]")]
    [False, False, False, False, False, False, False]
    """
    return is_server(uri) and not _is_of_this_machine(urlsplit(uri).hostname or "")


def _is_of_this_machine(host: str) -> bool:
    name = host.rstrip(".")
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        # Numbers as networks read them: 127.1 and 0 too.
        address: Address = ip_address(socket.inet_aton(name))
    except (OSError, ValueError):
        try:
            address = ip_address(name.partition("%")[0])
        except ValueError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def shown_uri(uri: str) -> str:
    """An address that can be shown to others: without a user's name and password.

    >>> shown_uri("postgresql://me:secret@host:5432/mlflow"), shown_uri("sqlite:///out/mlruns.db")
    ('postgresql://host:5432/mlflow', 'sqlite:///out/mlruns.db')
    """
    return _ADDRESS.sub(r"\1\2", uri)


def _git(folder: Path, *arguments: str) -> str:
    try:
        found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if not found.returncode else ""
