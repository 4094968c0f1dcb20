"""What a user reads where weights cannot be had: against a server that answers as Hugging Face does, in a separate process."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.encoders import load_encoder
from shared.encoders.hub import downloaded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def answering(tmp_path, run_python):
    """Runs `load_encoder` with a hub that answers with a status and an error code, and returns the error's kind and text."""
    servers = []

    def run(source, status, code):
        class Hub(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", f"{code} of a test")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Hub))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        program = (
            "import json, sys\nfrom shared.encoders import load_encoder\n"
            "try:\n    load_encoder(sys.argv[1])\n"
            "except Exception as error:\n    print(json.dumps([type(error).__name__, str(error)]))"
        )
        endpoint = f"http://127.0.0.1:{servers[-1].server_port}"
        home = tmp_path / f"hub{len(servers)}"
        finished = run_python("-c", program, source, HF_ENDPOINT=endpoint, HF_HOME=str(home), HF_TOKEN="", PYTHONPATH=str(ROOT))
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout.splitlines()[-1])

    yield run
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("uni2-h", "checkpoint_path"),
        ("hf-hub:MahmoodLab/UNI2-h", "checkpoint_path"),
        ("hf-hub:someone/gated", "its config.json and weights, give the folder that holds both as local-dir:FOLDER"),
    ],
)
def test_a_gated_model_names_the_page_and_the_remedies(answering, source, remedy):
    pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")
    kind, text = answering(source, 401, "GatedRepo")
    assert kind == "RuntimeError"
    page = "https://huggingface.co/someone/gated" if "someone" in source else "https://huggingface.co/MahmoodLab/UNI2-h"
    for said in (page, "access", "hf auth login", remedy):
        assert said in text
    # Of hf-hub: the configuration is read from there even with weights of one's own.
    assert ("checkpoint_path" in text) == (remedy == "checkpoint_path")


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("uni2-h", "give the file as checkpoint_path"),
        ("hf-hub:someone/open", "give the folder that holds both as local-dir:FOLDER"),
    ],
)
def test_without_a_network_the_remedy_is_one_that_needs_none(run_python, tmp_path, source, remedy):
    pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")
    program = "import sys\nfrom shared.encoders import load_encoder\nload_encoder(sys.argv[1])"
    finished = run_python("-c", program, source, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    assert f"on a machine with network access and {remedy}" in finished.stderr


def test_a_local_folder_needs_no_network(run_python, tmp_path):
    """The remedy for ``hf-hub:`` works."""
    pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")
    program = (
        "import json, pathlib, sys, timm, torch\nfrom shared.encoders import load_encoder\nfolder = pathlib.Path(sys.argv[1])\n"
        "torch.save(timm.create_model('resnet18', num_classes=3).state_dict(), folder / 'pytorch_model.bin')\n"
        "(folder / 'config.json').write_text(json.dumps({'architecture': 'resnet18', 'num_classes': 3, 'pretrained_cfg': {}}))\n"
        "print(load_encoder(f'local-dir:{folder}').channels)"
    )
    finished = run_python("-c", program, str(tmp_path), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    assert finished.stdout.split() == ["512"], finished.stderr


@pytest.mark.parametrize(
    ("source", "status", "code", "said"),
    [
        ("hf-hub:someone/nothing", 404, "RepoNotFound", "there is no https://huggingface.co/someone/nothing, or it is private"),
        ("phikon-v2", 404, "EntryNotFound", "cannot get the weights of phikon-v2"),
        ("timm/resnet18.a1_in1k", 401, "RepoNotFound", "check the name"),
    ],
)
def test_a_model_that_is_not_there(answering, source, status, code, said):
    pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")
    kind, text = answering(source, status, code)
    assert kind == "RuntimeError"
    assert said in text


def test_a_release_that_cannot_be_reached(tmp_path, monkeypatch):
    pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")

    def no_network(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    monkeypatch.setattr("shared.encoders.hub.urlopen", no_network)
    with pytest.raises(
        RuntimeError, match=r"no network. Download https://github.com/kaiko-ai/.*/vits16.pth on a machine .*, put it at .*"
    ) as told:
        load_encoder("kaiko-vits16")
    assert str(tmp_path) in str(told.value)


@pytest.fixture
def release(tmp_path, monkeypatch):
    """An address whose server announces 1000 bytes and sends as many as it is told, and the folder of what is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    sent = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"w" * sent[0])

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/weights.pth", sent, tmp_path / "hub" / "checkpoints"
        server.shutdown()


def test_a_download_that_is_cut_short_leaves_no_file(release):
    url, sent, folder = release
    sent[:] = [400]
    with pytest.raises(RuntimeError, match="expected 1000 bytes, found 400") as told:
        downloaded("mine", url)
    assert "put it at" in str(told.value)
    assert list(folder.iterdir()) == []
    sent[:] = [1000]
    assert downloaded("mine", url).read_bytes() == b"w" * 1000
    assert [path.name for path in folder.iterdir()] == ["mine-weights.pth"]


@pytest.mark.parametrize("source", ["timm/resnet18", "uni", "hf-hub:MahmoodLab/UNI2-h"])
def test_a_missing_timm_is_said_in_one_sentence(monkeypatch, source):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs timm, which is not installed: pip install -r requirements-encoders.txt"
    ):
        load_encoder(source)
