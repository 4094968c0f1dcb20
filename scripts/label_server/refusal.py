"""What a client may be told when its request is not carried out."""

from __future__ import annotations


class Refusal(ValueError):
    """A request that cannot be answered, with the reason for the client.

    Args:
        message: says what was expected and what was received.
        status: HTTP status, 4xx.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status
