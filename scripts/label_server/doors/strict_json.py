"""JSON from outside: nothing that cannot be written back, compared or stored."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request

from ..refusal import Refusal

# Of what is kept of an image or a label, as text.
LARGEST_NOTE_BYTES = 64 * 2**10


def parse_json(text: str | bytes | None, what: str) -> Any:
    """A JSON value from a form or a body; nothing is an empty object.

    Python's own parser takes ``NaN`` and ``1e999``, which no client can read back, lone surrogates, which no answer can hold,
    and whole numbers of any length.

    Raises:
        Refusal: for what is no JSON, or is nested too deeply.
    """
    if not text or not text.strip():
        return {}
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise Refusal(f"{what} is no JSON: {error}", 400) from error


async def body_of(request: Request) -> bytes:
    """The body of a request that is read at once.

    Raises:
        Refusal: for a form, which may be as large as an upload and is not held in memory.
    """
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        raise Refusal(f"the body must be JSON, got {kind[:80]!r}", 415)
    return await request.body()


def parse_note(text: str | bytes | None, what: str) -> dict[str, Any]:
    """A JSON object that is going to be kept beside an image or a label.

    Raises:
        Refusal: for anything else, and for one of more than `LARGEST_NOTE_BYTES`.
    """
    size = len(text or "")
    if size > LARGEST_NOTE_BYTES:
        raise Refusal(f"{what} has {size:,} bytes; {LARGEST_NOTE_BYTES:,} are kept at most", 413)
    value = parse_json(text, what)
    if not isinstance(value, dict):
        raise Refusal(f"{what} must be a JSON object, got {repr(value)[:80]}")
    return value
