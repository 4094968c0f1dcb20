"""JSON from clients, limited to what can be written back, compared and stored."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request

from ..refusal import Refusal

# Size of the JSON text that is stored for an image or a label.
LARGEST_NOTE_BYTES = 64 * 2**10


def parse_json(text: str | bytes | None, what: str) -> Any:
    """Parse a JSON value from a form or a body; an empty text is an empty object.

    Python's own parser is not strict enough: it accepts ``NaN`` and ``1e999``, which no client can read back, lone surrogates,
    which no answer can contain, and whole numbers of any length.

    Raises:
        Refusal: if the text is not JSON or is nested too deeply.
    """
    if not text or not text.strip():
        return {}
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise Refusal(f"{what} is not valid JSON: {error}", 400) from error


async def body_of(request: Request) -> bytes:
    """Read the whole body of a request.

    Raises:
        Refusal: for a form, which may be as large as an upload and must not be held in memory.
    """
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        raise Refusal(f"the body must be JSON, got {kind[:80]!r}", 415)
    return await request.body()


def parse_note(text: str | bytes | None, what: str) -> dict[str, Any]:
    """Parse a JSON object that will be stored with an image or a label.

    Raises:
        Refusal: if it is not an object, or larger than `LARGEST_NOTE_BYTES`.
    """
    size = len(text or "")
    if size > LARGEST_NOTE_BYTES:
        raise Refusal(f"{what} has {size:,} bytes; at most {LARGEST_NOTE_BYTES:,} are stored", 413)
    value = parse_json(text, what)
    if not isinstance(value, dict):
        raise Refusal(f"{what} must be a JSON object, got {repr(value)[:80]}")
    return value
