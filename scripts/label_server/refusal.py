"""The error for requests that cannot be answered."""

from __future__ import annotations


class Refusal(ValueError):
    """A request that cannot be answered, with the reason for the client.

    Args:
        message: the reason, stating what was expected and received.
        status: HTTP status: 4xx, or 5xx if the server is at fault.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status
