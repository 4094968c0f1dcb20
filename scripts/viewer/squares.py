"""What the browser fetches in addition to the page itself: squares and thumbnails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from tornado.web import HTTPError, RequestHandler

from shared.front_door import available_cores

from .access import REFUSAL, Access
from .layers import Layers

logger = logging.getLogger(__name__)

_DAY_S = 86400


def slide_address(name: str) -> str:
    """The address of a slide's squares, with places for Bokeh to fill in."""
    return f"/slide/{quote(name, safe='')}/{{Z}}/{{X}}/{{Y}}.png"


def truth_address(name: str) -> str:
    """The address of the squares of a slide's mask, with places for Bokeh to fill in."""
    return f"/truth/{quote(name, safe='')}/{{Z}}/{{X}}/{{Y}}.png"


def map_address(method: int, name: str, colours: str, channel: int, version: str) -> str:
    """The address of the squares of a map, with places for Bokeh to fill in.

    Args:
        method: number of the method.
        name: name of the slide.
        colours: see `Layers.map_square`.
        channel: see `Layers.map_square`.
        version: changes with the map, so that the browser fetches it again.
    """
    return f"/map/{method}/{quote(name, safe='')}/{colours}/{channel}/{version}/{{Z}}/{{X}}/{{Y}}.png"


def thumbnail_address(name: str, version: str) -> str:
    return f"/thumbnail/{quote(name, safe='')}.png?version={version}"


class _Pictures(RequestHandler):
    """A picture, made in a thread so that the page stays responsive."""

    def initialize(self, layers: Layers, access: Access, executor: ThreadPoolExecutor) -> None:
        self.layers, self.access, self.executor = layers, access, executor

    def prepare(self) -> None:
        if not self.access.is_allowed(self):
            raise HTTPError(403, REFUSAL)

    async def answer(self, make: Callable[..., bytes], *arguments: Any) -> None:
        try:
            picture = await asyncio.get_running_loop().run_in_executor(self.executor, make, *arguments)
        except (ValueError, OSError, KeyError) as error:
            self.set_status(404)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(str(error))
            return
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", f"private, max-age={_DAY_S}")
        self.finish(picture)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self._reason)


class SlideSquares(_Pictures):
    async def get(self, name: str, zoom: str, column: str, row: str) -> None:
        await self.answer(self.layers.slide_square, name, (int(zoom), int(column), int(row)))


class TruthSquares(_Pictures):
    async def get(self, name: str, zoom: str, column: str, row: str) -> None:
        await self.answer(self.layers.truth_square, name, (int(zoom), int(column), int(row)))


class MapSquares(_Pictures):
    async def get(self, method: str, name: str, colours: str, channel: str, zoom: str, column: str, row: str) -> None:
        place = (int(zoom), int(column), int(row))
        await self.answer(self.layers.map_square, int(method), name, place, colours, int(channel))


class Thumbnails(_Pictures):
    HEIGHT_PX = 56

    async def get(self, name: str) -> None:
        await self.answer(self.layers.thumbnail, name, self.HEIGHT_PX)


def routes(layers: Layers, access: Access) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The addresses, and the handlers that answer them."""
    executor = ThreadPoolExecutor(max(2, available_cores()), thread_name_prefix="squares")
    place, name, number = r"([0-9]{1,2})/([0-9]{1,7})/([0-9]{1,7})\.png", r"([^/]+)", r"([0-9]{1,4})"
    known = {"layers": layers, "access": access, "executor": executor}
    return [
        (rf"/slide/{name}/{place}", SlideSquares, known),
        (rf"/truth/{name}/{place}", TruthSquares, known),
        (rf"/map/{number}/{name}/([a-z]+)/{number}/[0-9a-f.]*/{place}", MapSquares, known),
        (rf"/thumbnail/{name}\.png", Thumbnails, known),
    ]
