"""Access control: the hosts that may be served, and the names that clients may send."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from ..refusal import Refusal

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
# Parameters of requests that become file names.
FILE_NAME_PARAMETERS = ("image", "id", "label", "tag", "session_id")
_LONGEST_NAME = 255


def check_host(host: str, has_authentication: bool, insecure: bool) -> None:
    """Check that the server is not opened to strangers by accident.

    Args:
        host: the address to listen on.
        has_authentication: whether MONAI Label's authentication is switched on.
        insecure: whether the user has confirmed that none is needed.

    Raises:
        ValueError: if other machines can reach the address, and neither of the two is True.
    """
    if not is_loopback(host) and not has_authentication and not insecure:
        raise ValueError(
            f"--host {host} can be reached from other machines, so anyone on the network could read and label the slides: set "
            "MONAI_LABEL_AUTH_ENABLE=true and MONAI_LABEL_AUTH_REALM_URI (Keycloak), or give --insecure if the network itself "
            "keeps strangers out"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

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
    """Accepted ``Host`` headers; on loopback only its own names, so that no web page can reach it by another name."""
    return [*LOOPBACK_NAMES, host] if is_loopback(host) else ["*"]


def check_name(name: object, what: str = "image") -> str:
    """Check that a name from a client can be used as a file name inside its folder, and return it.

    Raises:
        Refusal: for a path, a hidden file, or a name that file systems do not accept.

    >>> check_name("case 001.A")
    'case 001.A'
    """
    if not isinstance(name, str):
        raise Refusal(f"the {what} must be a name, got {repr(name)[:80]}")
    is_path = any(letter in name for letter in ("/", "\\", "\0")) or name.startswith(".")
    if is_path or len(name.encode("utf-8", "replace")) > _LONGEST_NAME or any(ord(letter) < 32 for letter in name):
        raise Refusal(f"the {what} {name[:80]!r} is no valid name: no folders, no leading dot, up to {_LONGEST_NAME} bytes", 400)
    return name


def check_parameters(parameters: Iterable[tuple[str, str]] | Mapping[str, str]) -> None:
    """Apply `check_name` to all parameters of a request that become file names."""
    pairs = parameters.items() if isinstance(parameters, Mapping) else parameters
    for name, value in pairs:
        if name in FILE_NAME_PARAMETERS and value:
            check_name(value, name)
