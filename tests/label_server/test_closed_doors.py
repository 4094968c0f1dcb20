"""What a stranger, a web page or a broken client may send: an answer with a reason, nothing left behind, a living server."""

import http.client
import json
import math
import shutil
import signal
import time
from urllib.parse import quote, urlencode

import numpy as np
import pytest
import torch

from scripts.label_server.refusal import Refusal
from scripts.label_server.studies.drawn_files import DrawnFiles
from shared.networks import SideOutputVGG

from .conftest import DEADLINE_S, TINY_CDWS, Server, asap, running

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
WSI = "/infer/wsi/cdws_mil?output=asap&image=slide_00"
UPLOAD_GB = 0.004
# Deeper, larger, longer and stranger than anything that a viewer sends.
HOSTILE = {
    "huge": "1e308",
    "infinite": "1e999",
    "no number": "NaN",
    "long": "9" * 400,
    "negative": "-1e308",
    "deep": "[" * 100_000 + "]" * 100_000,
    "surrogate": '"\\ud800"',
    "expression": "\"$__import__('os').abort()\"",
    "reference": '"@run"',
    "path": '"/etc/passwd"',
    "text": json.dumps("a" * 5000),
    "list": "[[]]",
    "object": '{"x":{}}',
    "null in it": "[null,null]",
    "pair of huge": "[1e308,1e308]",
}
KEYS = {
    WSI: ("location", "size", "min_poly_area", "level", "mpp", "annotation_frame", "params", "tile_size"),
    "/activelearning/least_certain": ("model", "image", "patch_size", "map_slides", "client_id", "strategy"),
    "/activelearning/unlabelled": ("client_id", "image_size"),
    "/train/cdws_mil": ("max_epochs", "val_split", "device", "pretrained", "train_batch_size"),
}


@pytest.fixture(scope="module")
def server(monai_label, generated, tmp_path_factory):
    """One small model, over two slides of its own."""
    folder = tmp_path_factory.mktemp("doors") / "my slides"
    (folder / "weights").mkdir(parents=True)
    (folder / "tmp").mkdir()
    (folder / "studies").mkdir()
    for name in ("slide_00", "slide_01"):
        shutil.copy(generated / "slides" / f"{name}.tif", folder / "studies")
    torch.manual_seed(0)
    torch.save(SideOutputVGG(num_stages=2, norm="batch").state_dict(), folder / "weights" / "model.pt")
    (folder / "weights" / "config.json").write_text(json.dumps(TINY_CDWS))
    arguments = ["--models", "cdws_mil", "--checkpoint", f"cdws_mil={folder / 'weights'}", "--largest_upload_gb", str(UPLOAD_GB)]
    with running(Server(folder / "studies", folder / "work", arguments, {"TMPDIR": str(folder / "tmp")})) as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_is_left_behind(server):
    """Behind every test: the server answers, at once, and no file of a request lies about."""
    yield
    started = time.monotonic()
    assert server.ask("GET", "/info/").status == 200
    assert time.monotonic() - started < 120
    # What a client has broken off may still be under way.
    deadline = time.monotonic() + DEADLINE_S
    while left := [path for path in (server.work_dir / "temporary").rglob("*") if path.is_file()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not list((server.studies.parent / "tmp").iterdir())


def refused(server, reply):
    """The reason, which names no folder of this machine."""
    assert 400 <= reply.status < 500, reply
    assert not any(str(folder) in reply.reason for folder in (server.studies, server.work_dir, "/tmp", "/home", "/root")), reply
    return reply.reason


@pytest.mark.parametrize(("path", "key"), [(path, key) for path, keys in KEYS.items() for key in keys])
def test_no_value_of_a_body_stops_the_server(server, path, key):
    for value in HOSTILE.values():
        reply = server.ask("POST", path, f'{{"{key}":{value}}}', timeout=DEADLINE_S)
        # What decides nothing is passed over; and no training may begin.
        if reply.status != 200:
            assert 0 < len(refused(server, reply)) < 1000
        else:
            assert not path.startswith("/train/"), reply


def test_options_of_a_training_have_bounds(server):
    for options, reason in (
        ({"device": "cuda') or __import__('os').abort() or torch.device('cpu"}, "device must be cpu, cuda"),
        ({"device": "@run"}, "device must be cpu, cuda"),
        ({"max_epochs": 10**9}, "from 1 to 10000"),
        ({"val_split": 1e308}, "val_split must lie between 0 and 1"),
    ):
        reply = server.ask("POST", "/train/cdws_mil", options)
        assert reply.status == 422
        assert reason in reply.reason


@pytest.mark.parametrize("key", ["strategy", "weak_label", "meta", "path", "name", "note"])
def test_what_is_said_of_a_slide_can_be_read_again(server, key):
    for value in HOSTILE.values():
        body = urlencode({"info": f'{{"{key}":{value}}}'})
        reply = server.ask("PUT", "/datastore/image/info?image=slide_00", body, FORM)
        if reply.status != 200:
            refused(server, reply)
        assert server.ask("POST", "/activelearning/unlabelled", {}).status == 200
        for path in ("/datastore/?output=all", "/datastore/image/info?image=slide_00", "/weak_labels/"):
            read = server.ask("GET", path)
            assert read.status == 200, read
            assert all(map(math.isfinite, _numbers(read.json)))


def _numbers(value):
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(part)
    if isinstance(value, float):
        yield value


def test_strategies_of_another_form_are_refused(server):
    for info in ({"strategy": 5}, {"strategy": {"unlabelled": 5}}, {"meta": {"weak_label": 5}}):
        reply = server.ask("PUT", "/datastore/image/info?image=slide_00", urlencode({"info": json.dumps(info)}), FORM)
        assert reply.status == 422, reply
    large = urlencode({"info": json.dumps({"note": "a" * 100_000})})
    assert server.ask("PUT", "/datastore/image/info?image=slide_00", large, FORM).status == 413


def test_what_leaves_copies_or_removes_is_not_there_unless_it_is_asked_for(server):
    for method, path in (
        ("GET", "/datastore/dataset"),
        ("DELETE", "/datastore/?id=slide_00"),
        ("DELETE", "/datastore/image?id=slide_00"),
        ("DELETE", "/datastore/label?id=slide_00&tag=final"),
        ("PUT", "/datastore/updatelabelinfo?label=slide_00&tag=final"),
    ):
        assert server.ask(method, path).status in (404, 405), path
    assert (server.studies / "slide_00.tif").is_file()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/datastore/image?image=slide_00"), ("GET", "/info/"), ("POST", "/train/cdws_mil"), ("POST", WSI)],
)
def test_a_web_page_can_trigger_nothing(server, method, path, site):
    """An image or a link of a page, and its forms without an origin."""
    assert "web pages" in refused(server, server.ask(method, path, None, {"Sec-Fetch-Site": site}))
    for own in ("same-origin", "none"):
        assert server.ask("GET", "/info/", None, {"Sec-Fetch-Site": own}).status == 200


@pytest.mark.parametrize("origin", ["null", "http://[", "http://127.0.0.1", "https://evil.example"])
def test_a_page_of_another_origin_is_sent_away_whatever_it_is_called(server, origin):
    assert "web pages" in refused(server, server.ask("GET", "/info/", None, {"Origin": origin}))


@pytest.mark.parametrize("path", [WSI, "/train/cdws_mil", "/activelearning/unlabelled"])
def test_a_form_is_not_read_where_json_is_wanted(server, path):
    """It may be as large as an upload, and would be held in memory."""
    reply = server.ask("POST", path, "{}", {"Content-Type": "Multipart/form-data; boundary=b"})
    assert (reply.status, "the body must be JSON" in reply.reason) == (415, True)


@pytest.mark.parametrize("output", [[1], {"a": 1}, 5, "no", "a" * 5000])
def test_an_output_that_is_none_is_refused(server, output):
    reply = server.send("POST", "/infer/cdws_mil?image=slide_00", {}, {"params": json.dumps({"output": output})})
    assert "output must be one of asap, dsa" in refused(server, reply)


def connection(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", WSI, "application/json"),
        ("POST", "/train/cdws_mil", "application/json"),
        ("POST", "/activelearning/unlabelled", "application/json"),
        ("PUT", "/datastore/image/info?image=slide_00", "application/x-www-form-urlencoded"),
        ("PUT", "/datastore/image?image=new", "multipart/form-data; boundary=b"),
        ("PUT", "/datastore/label?image=slide_00", "multipart/form-data; boundary=b"),
        ("POST", "/infer/wsi_v2/cdws_mil", "multipart/form-data; boundary=b"),
        ("POST", "/infer/cdws_mil", "multipart/form-data; boundary=b"),
    ],
)
@pytest.mark.parametrize("is_said", [True, False], ids=["said", "unsaid"])
def test_bodies_end(server, method, path, kind, is_said):
    """Whether their length is said, or they come in chunks without an end."""
    client = connection(server)
    client.putrequest(method, path)
    client.putheader("Content-Type", kind)
    size = int(UPLOAD_GB * 2**30) + 1
    client.putheader(*(("Content-Length", str(10**15)) if is_said else ("Transfer-Encoding", "chunked")))
    client.endheaders()
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' if "multipart" in kind else b" "
    try:
        for content in (part, *[b"a" * 65536] * (size // 65536 + 2)):
            client.send(content if is_said else b"%x\r\n%s\r\n" % (len(content), content))
    except (BrokenPipeError, ConnectionResetError):
        pass
    response = client.getresponse()
    answer = json.loads(response.read())
    client.close()
    # Forms have a bound of their own.
    reason = "exceeded maximum size" if response.status == 400 else "too large"
    assert response.status in (400, 413), answer
    assert reason in answer["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "a." + "b" * 300,
        "a" * 300 + ".png",
        ".".join("ab" * 100) + ".exe",
        "x",
        "",
        "a.png.exe",
        "../../a.exe",
        "a.xml" + " " * 200,
    ],
)
def test_the_names_of_uploads_decide_nothing(server, name):
    before = sorted(server.studies.rglob("*"))
    for method, path, field, other in (
        ("PUT", "/datastore/image", "file", {}),
        ("PUT", "/datastore/label?image=slide_00", "label", {}),
        ("POST", "/infer/wsi_v2/cdws_mil", "file", {"wsi": "{}"}),
        ("POST", "/infer/cdws_mil", "file", {"params": "{}"}),
    ):
        refused(server, server.send(method, path, {field: (name, b"nothing", "image/png")}, other))
    assert sorted(server.studies.rglob("*")) == before


@pytest.mark.parametrize("tag", ["original", "final2", "final.xml", "FINAL", "labels"])
def test_labels_have_one_tag(server, tag):
    files = {"label": ("a.xml", asap("Tumor", (0, 0, 9, 9)), "application/xml")}
    assert "the tag of a label must be 'final'" in refused(
        server, server.send("PUT", f"/datastore/label?image=slide_00&tag={tag}", files, {})
    )
    assert "the tag of a label must be 'final'" in refused(
        server, server.ask("GET", f"/datastore/label?label=slide_00&tag={tag}")
    )


def test_an_upload_that_claims_large_pixels_is_refused(server, generated):
    image = next((generated / "images").iterdir())
    files = {"file": (image.name, image.read_bytes(), "image/png")}
    bomb = {"file": ("bomb.png", _white_png(9_000), "image/png")}
    assert "more than" in refused(server, server.send("POST", "/infer/cdws_mil", bomb, {"params": '{"mpp": 100}'}))
    assert "mpp must be from" in refused(server, server.send("POST", "/infer/cdws_mil", files, {"params": '{"mpp": 1e308}'}))


def _white_png(side):
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.new("1", (side, side), 1).save(content, "png")
    return content.getvalue()


def test_errors_name_files_and_no_folders(server):
    (server.studies / "torn.tif").write_bytes((server.studies / "slide_00.tif").read_bytes()[:2000])
    deadline = time.monotonic() + DEADLINE_S
    while "torn" not in server.ask("GET", "/datastore/?output=all").json["objects"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    reason = refused(server, server.ask("POST", WSI.replace("slide_00", "torn"), {}))
    assert "torn.tif" in reason
    assert str(server.studies) not in reason
    files = {"label": ("a.xml", b"<html/>", "application/xml")}
    assert "/" not in refused(server, server.send("PUT", "/datastore/label?image=slide_00", files, {})).replace("/>", ">")
    (server.studies / "torn.tif").unlink()


def test_a_scribble_does_not_stop_the_server(server):
    """An outline of 3 KB that crosses itself 7,000 times is read apart from the server, and once."""
    points = np.random.default_rng(0).integers(0, 500, (250, 2)).tolist()
    content = json.dumps(_scribbles([points])).encode()
    assert len(content) < 3300
    reply = server.send("PUT", "/datastore/label?image=slide_00", {"label": ("a.geojson", content, "application/json")}, {})
    assert reply.status == 200, reply
    (kept,) = (server.work_dir / "drawn").glob("*.json")
    time_read = kept.stat().st_mtime_ns
    assert server.ask("GET", "/weak_labels/").json["slide_00"]["is_drawn"]
    assert [path.stat().st_mtime_ns for path in (server.work_dir / "drawn").glob("*.json")] == [time_read]


def test_outlines_that_take_too_long_are_given_up_and_not_begun_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = tmp_path / "many.geojson"
    path.write_text(json.dumps(_scribbles([rng.integers(0, 500, (900, 2)).tolist() for _ in range(20)])))
    drawn = DrawnFiles(tmp_path / "drawn", longest_s=2)
    for _ in range(2):
        with pytest.raises(Refusal, match=r"many\.geojson take longer than 2 s"):
            drawn.areas(path, "level0")
        monkeypatch.setattr(drawn, "_read", lambda *_: pytest.fail("begun again"))
    assert not list(tmp_path.glob("drawn/*"))


def _scribbles(outlines):
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*points, points[0]]]},
            "properties": {"classification": {"name": "Tumor"}},
        }
        for points in outlines
    ]
    return {"type": "FeatureCollection", "features": features}


@pytest.mark.parametrize("path", ["/datastore/image?image=slide_00&check_sum=md5:0", "/datastore/?output=no", "/model/info/x"])
def test_other_parameters_are_refused(server, path):
    method = "HEAD" if "check_sum" in path else "GET"
    assert 400 <= server.ask(method, path).status < 500


def test_the_server_ends_when_it_is_told_to_while_it_works(server):
    """A map is being computed, of a slide on which a network is slow; SIGTERM ends it nevertheless."""
    client = connection(server)
    client.request("POST", "/infer/wsi/cdws_mil?output=json&image=slide_01", "{}", JSON)
    time.sleep(0.3)
    started = time.monotonic()
    server.stop(signal.SIGTERM)
    # It has 5 s for what is under way.
    assert time.monotonic() - started < 120
    server.start()


def test_slides_and_labels_may_be_removed_where_that_is_asked_for(server):
    server.stop()
    server.arguments.append("--allow_delete")
    server.start()
    files = {"label": ("a.xml", asap("Tumor", (0, 0, 90, 90)), "application/xml")}
    assert server.send("PUT", "/datastore/label?image=slide_01", files, {}).status == 200
    assert server.ask("GET", "/weak_labels/").json["slide_01"]["tumor"] == 1
    assert server.ask("DELETE", "/datastore/label?id=slide_01&tag=final").status == 200
    assert "slide_01" not in server.ask("GET", "/weak_labels/").json
    assert server.ask("DELETE", f"/datastore/image?id={quote('slide_01')}").status == 200
    assert not (server.studies / "slide_01.tif").exists()
