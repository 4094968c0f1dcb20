"""Slides and their metadata from a Digital Slide Archive: its interface, as far as MONAI Label asks it, on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.label_server.conftest import Server, running

ITEMS = {
    "5f00000000000000000000a1": {"name": "slide_00.tif", "meta": {"weak_label": {"tumor": 1, "fraction": 0.3}}},
    "5f00000000000000000000a2": {"name": "slide_01.tif", "meta": {"weak_label": {"tumor": 5}}},
    "5f00000000000000000000a3": {"name": "slide_03.tif", "meta": {}},
}


class Archive(BaseHTTPRequestHandler):
    """Girder's answers about one folder of items, whose files lie in an asset store beside it."""

    def do_GET(self):
        url = urlsplit(self.path)
        parts, query = url.path.removeprefix("/api/v1/").split("/"), parse_qs(url.query)
        items = {key: {"_id": key, "largeImage": {"fileId": f"f{key}"}, **item} for key, item in ITEMS.items()}
        if parts == ["item"]:
            names = query.get("name")
            found = [item for item in items.values() if "folderId" in query and (names is None or item["name"] in names)]
            self._reply(200, found)
        elif parts[0] == "item" and parts[1] in items and len(parts) == 2:
            self._reply(200, items[parts[1]])
        elif parts[0] == "item" and len(parts) == 3 and parts[1] in items:
            self._reply(200, [{"_id": f"f{parts[1]}"}])
        elif parts[0] == "resource" and parts[1][1:] in items:
            self._reply(200, {"path": items[parts[1][1:]]["name"]})
        else:
            self._reply(400, {"message": "Invalid id", "type": "rest"})

    def _reply(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def archive(generated, checkpoints, tmp_path_factory):
    girder = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=girder.serve_forever, daemon=True).start()
    variables = {"MONAI_LABEL_DATASTORE_PROJECT": "f1", "MONAI_LABEL_DATASTORE_ASSET_PATH": str(generated / "slides")}
    arguments = ["--checkpoint", f"camel={checkpoints['camel']}", "--models", "camel"]
    folder = tmp_path_factory.mktemp("archive")
    address = f"http://127.0.0.1:{girder.server_port}/api/v1"
    with running(Server(address, folder / "work", arguments, variables)) as started:
        yield started
    girder.shutdown()
    girder.server_close()


def test_the_items_metadata_are_weak_labels(archive):
    """Malformed metadata is ignored with a warning."""
    expected = {"tumor": 1, "fraction": 0.3, "source": "item metadata", "is_drawn": False}
    assert archive.ask("GET", "/weak_labels/").json == {"5f00000000000000000000a1": expected}
    assert "5f00000000000000000000a2 is ignored: weak_label: tumor must be 0 or 1, got 5" in archive.log[-1].read_text()
    assert archive.ask("POST", "/activelearning/unlabelled", {}).json["id"] == "5f00000000000000000000a2"


@pytest.mark.parametrize("image", ["5f00000000000000000000a1", "slide_00"])
def test_a_slide_of_the_archive_is_mapped_by_its_id_or_its_name(archive, image):
    reply = archive.ask("POST", f"/infer/wsi/camel?image={image}&output=dsa", {"location": [-1, -1], "size": [-1, -1]})
    assert reply.status == 200, reply
    assert reply.json["elements"]
    assert archive.ask("POST", "/infer/wsi/camel?image=other&output=dsa", {}).status == 404


def test_what_the_archive_keeps_itself_is_refused(archive):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = archive.ask("PUT", "/datastore/image/info?image=5f00000000000000000000a1", "info={}", form)
    assert reply.status == 501
    assert archive.ask("GET", "/info/").status == 200
