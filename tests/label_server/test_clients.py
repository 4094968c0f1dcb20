"""The requests of the QuPath extension, the Digital Slide Archive's task, the CVAT detector and MONAI Label's own client."""

import json
import statistics
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tifffile
from PIL import Image
from rasterio import features
from shapely.geometry import Polygon, shape

from .conftest import DEADLINE_S

QUPATH = {
    "level": 0,
    "location": [0, 0],
    "size": [0, 0],
    "tile_size": [1024, 1024],
    "min_poly_area": 30,
    "params": {"foreground": [], "background": [], "max_workers": 1},
}
DSA = {
    "level": 0,
    "location": [-1, -1],
    "size": [-1, -1],
    "tile_size": [1024, 1024],
    "min_poly_area": 80.0,
    "output": "dsa",
    "girder_api_url": "http://x/api/v1",
    "girder_token": "t",
    "params": {"wsi_tiles": []},
    "client_id": None,
}


def painted(polygons, shape_px):
    found = [polygon for polygon in polygons if polygon.area]
    return features.rasterize(found, shape_px).astype(bool) if found else np.zeros(shape_px, bool)


def asap_polygons(content):
    found = []
    for annotation in ET.fromstring(content).iter("Annotation"):
        points = sorted(
            (int(point.get("Order")), float(point.get("X")), float(point.get("Y"))) for point in annotation.iter("Coordinate")
        )
        found.append(Polygon([point[1:] for point in points]))
    return found


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope="module")
def own_map(server, truth):
    """CAMEL's own map of slide_04 on level 0, bool, from the file that the server's inference wrote."""
    assert server.ask("POST", "/infer/wsi/camel?output=asap&image=slide_04", QUPATH).status == 200
    (path,) = (server.work_dir / "maps" / "camel").glob("*/slide_04.ome.tif")
    values = tifffile.imread(path, level=0)
    height, width = truth["slide_04"].shape
    return (values >= 255 * 0.5).repeat(4, 0).repeat(4, 1)[:height, :width]


def test_qupath_asks_what_there_is(server):
    assert server.ask("GET", "/auth/").status == 404
    info = server.ask("GET", "/info/").json
    assert set(info["models"]) == {"camel", "alpha_beta_mil", "cdws_mil"} == set(info["trainers"])
    assert info["models"]["camel"]["pathology"]
    assert info["models"]["camel"]["labels"] == ["Tumor"] == info["labels"]
    assert set(info["strategies"]) == {"least_certain", "unlabelled"}
    assert server.ask("HEAD", "/datastore/image?image=slide_00").status == 200
    assert server.ask("HEAD", "/datastore/image?image=other").status == 404


def test_polygons_of_a_slide_are_its_map(server, truth, own_map):
    reply = server.ask("POST", "/infer/wsi/camel?output=asap&image=slide_04", QUPATH)
    assert reply.kind.startswith("application/xml")
    found = painted(asap_polygons(reply.content), own_map.shape)
    # Outlines are simplified by up to 1.5 um, and areas of less than 1000 um^2 are left out of them.
    kept = own_map & painted([p.buffer(12) for p in asap_polygons(reply.content)], own_map.shape)
    assert dice(found, kept) >= 0.99
    assert dice(found, truth["slide_04"]) >= 0.99 * dice(own_map, truth["slide_04"])
    assert dice(own_map, truth["slide_04"]) > 0.5


def test_a_region_is_a_part_of_the_slide(server, own_map):
    left, top, width, height = 300, 420, 500, 460
    region = QUPATH | {"location": [left, top], "size": [width, height]}
    whole = painted(
        asap_polygons(server.ask("POST", "/infer/wsi/camel?output=asap&image=slide_04", QUPATH).content), own_map.shape
    )
    cached = painted(
        asap_polygons(server.ask("POST", "/infer/wsi/camel?output=asap&image=slide_04", region).content), own_map.shape
    )
    inside = np.zeros_like(own_map)
    inside[top : top + height, left : left + width] = True
    assert dice(cached, whole & inside) > 0.995
    assert not (cached & ~inside).any()


def test_a_region_of_an_unmapped_slide_is_computed_alone(server):
    region = {"location": [100, 100], "size": [300, 260]}
    first = server.ask("POST", "/infer/wsi/camel?output=json&image=slide_02", region).json
    again = server.ask("POST", "/infer/wsi/camel?output=json&image=slide_02", region).json
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["annotations"] == again["annotations"]
    (maps,) = (server.work_dir / "maps" / "camel").iterdir()
    assert not (maps / "slide_02.ome.tif").exists()
    whole = server.ask("POST", "/infer/wsi/camel?output=geojson&image=slide_02", {}).json
    cut = server.ask("POST", "/infer/wsi/camel?output=geojson&image=slide_02", region).json
    alone = first["annotations"][0]["annotation"]["elements"]
    assert whole["features"]
    found = painted([Polygon(ring) for element in alone for ring in element["contours"]], (640, 520))
    assert dice(found, painted([shape(feature["geometry"]) for feature in cut["features"]], (640, 520))) > 0.98


def test_the_same_request_again_is_answered_from_the_cache(server, own_map):
    replies = [server.ask("POST", "/infer/wsi/camel?output=json&image=slide_04", {}) for _ in range(2)]
    assert [reply.json["cached"] for reply in replies] == [True, True]
    assert server.ask("POST", "/infer/wsi/cdws_mil?output=json&image=slide_00", {}).json["cached"] is False


def test_digital_slide_archive(server, own_map):
    reply = server.ask("POST", "/infer/wsi/camel?image=slide_04&output=dsa", DSA, {"Content-Type": "application/json"})
    found = reply.json
    assert found["name"] == "camel"
    kinds = {(part["type"], part["group"], part["closed"], part["label"]["value"]) for part in found["elements"]}
    assert kinds == {("polyline", "Tumor", True, "Tumor")}
    assert all(len(point) == 3 and point[2] == 0 for part in found["elements"] for point in part["points"])
    line = reply.content.decode().split("\n")[-2]
    assert json.loads(json.loads(line.replace(' "description": ', "")))["count"] == len(found["elements"])
    tiles = [{"location": [0, 0], "size": [256, 256]}, {"location": [256, 256], "size": [256, 256]}]
    part = server.ask("POST", "/infer/wsi/camel?image=slide_04&output=dsa", DSA | {"params": {"wsi_tiles": tiles}})
    assert part.status == 200
    assert max(point[0] for element in part.json["elements"] for point in element["points"]) <= 512


def test_qupath_sends_a_crop_of_a_slide_that_the_server_does_not_have(server, generated, tmp_path):
    pixels = tifffile.imread(generated / "slides" / "slide_00.tif", level=0)[80:400, 100:420]
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    files = {"file": ("patch123.png", (tmp_path / "patch.png").read_bytes(), "image/png")}
    reply = server.send("POST", "/infer/wsi_v2/camel?output=asap", files, {"wsi": json.dumps(QUPATH)})
    assert reply.status == 200
    found = asap_polygons(reply.content)
    assert found
    assert all(0 <= value <= 320 for polygon in found for value in polygon.bounds)


def test_cvat_sends_an_image(server, generated, tmp_path):
    pixels = tifffile.imread(generated / "slides" / "slide_00.tif", level=0)[80:400, 100:420]
    Image.fromarray(pixels).save(tmp_path / "image.jpg", quality=95)
    files = {"file": ("tmpabc.jpg", (tmp_path / "image.jpg").read_bytes(), "image/jpeg")}
    reply = server.send("POST", "/infer/camel?image=", files, {"params": '{"output": "json", "client_id": null}'})
    elements = [element for part in reply.json["annotations"] for element in part["annotation"]["elements"]]
    assert [element["label"] for element in elements] == ["Tumor"]
    assert all(len(point) == 2 for contour in elements[0]["contours"] for point in contour)


CLIENT = """
import json, sys
from monailabel.client import MONAILabelClient
client = MONAILabelClient(sys.argv[1])
assert not client.auth_enabled()
_, body = client.wsi_infer("camel", "slide_04", {"location": [0, 0], "size": [0, 0]}, output="json")
elements = json.loads(body)["annotations"][0]["annotation"]["elements"]
_, params = client.infer("camel", "", {}, file=sys.argv[2])
sample = client.next_sample("unlabelled", {})
objects = client.datastore()["objects"]
try:
    client.wsi_infer("camel", "other")
except Exception as error:
    refused = "404" in error.msg
print(json.dumps({"models": sorted(client.info()["models"]), "contours": len(elements[0]["contours"]), "file": len(params),
                  "sample": sample["id"], "images": sorted(objects), "training": client.train_status(True), "refused": refused}))
"""


def test_the_official_client(server, own_map, tmp_path):
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / "image.png")
    command = [sys.executable, "-c", CLIENT, f"http://127.0.0.1:{server.port}", str(tmp_path / "image.png")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["models"] == ["alpha_beta_mil", "camel", "cdws_mil"]
    assert said["images"] == ["broken", *(f"slide_{index:02d}" for index in range(5))]
    assert said["contours"] > 0
    assert said["file"] > 0
    assert said["sample"] == "slide_00"
    assert said["refused"]
    assert not said["training"]


def test_info_answers_while_a_slide_is_mapped_and_two_clients_are_served(server):
    replies = {}

    def infer(name, model):
        replies[name] = server.ask("POST", f"/infer/wsi/{model}?output=json&image={name}", {})

    threads = [threading.Thread(target=infer, args=pair) for pair in (("slide_01", "cdws_mil"), ("slide_04", "cdws_mil"))]
    seconds = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        started = time.perf_counter()
        assert server.ask("GET", "/info/").status == 200
        seconds.append(time.perf_counter() - started)
        time.sleep(0.02)
    assert {reply.status for reply in replies.values()} == {200}
    # If it waited for maps, there would be an answer before the first, one between the two, and one behind them.
    assert len(seconds) > 5
    assert statistics.median(seconds) < 1
