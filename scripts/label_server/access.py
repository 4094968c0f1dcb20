"""Who may talk to the server, and which names may come from outside."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from .refusal import Refusal

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
# Parameters of requests that become names of files.
FILE_NAME_PARAMETERS = ("image", "id", "label", "tag", "session_id")
_LONGEST_NAME = 255


def check_host(host: str, has_authentication: bool, insecure: bool) -> None:
    """Refuse to serve strangers by accident.

    Args:
        host: the address to listen on.
        has_authentication: MONAI Label's own is switched on.
        insecure: the person who starts the server has said that none is needed.

    Raises:
        ValueError: for an address that other machines reach, without either.
    """
    if not is_loopback(host) and not has_authentication and not insecure:
        raise ValueError(
            f"--host {host} can be reached from other machines, and everybody who reaches it could read and label the slides: "
            "set MONAI_LABEL_AUTH_ENABLE=true with MONAI_LABEL_AUTH_REALM_URI (Keycloak), or give --insecure where the network "
            "keeps strangers out"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.1.5", "")]
    [True, True, True, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str) -> list[str]:
    """``Host`` headers that are answered: on loopback only its names, so that no web page can point a name of its own here."""
    return [*LOOPBACK_NAMES, host] if is_loopback(host) else ["*"]


def check_name(name: object, what: str = "image") -> str:
    """A name from outside that becomes the name of a file, if it stays in its folder.

    Raises:
        Refusal: for a path, a hidden file, or a name that no file system takes.

    >>> check_name("case 001.A")
    'case 001.A'
    """
    if not isinstance(name, str):
        raise Refusal(f"the {what} must be a name, got {repr(name)[:80]}")
    is_path = any(letter in name for letter in ("/", "\\", "\0")) or name.startswith(".")
    if is_path or len(name.encode("utf-8", "replace")) > _LONGEST_NAME or any(ord(letter) < 32 for letter in name):
        raise Refusal(f"the {what} {name[:80]!r} is no name: no folders, no leading dot, at most {_LONGEST_NAME} bytes", 400)
    return name


def check_parameters(parameters: Iterable[tuple[str, str]] | Mapping[str, str]) -> None:
    """`check_name` of all those of a request's parameters that become names of files."""
    pairs = parameters.items() if isinstance(parameters, Mapping) else parameters
    for name, value in pairs:
        if name in FILE_NAME_PARAMETERS and value:
            check_name(value, name)
