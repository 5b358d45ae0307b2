"""Names of released models: where they are looked for, what is said when they are missing, and fetching them."""

import dataclasses
import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from reference_cases import REFERENCE

import tats
from tats import weights
from tats.flags import UserError
from tats.released import ALL, MODELS, NETWORKS, Released

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test sees or touches the cache of the machine."""
    monkeypatch.setenv("TATS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server():
    """A web server on this machine; `server.pages` holds path -> (status, headers, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = self.server.pages.get(self.path, (404, {}, b"no such page"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            return None

    web = HTTPServer(("127.0.0.1", 0), Handler)
    web.pages = {}
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()


def served(server, monkeypatch, body, headers=None, status=200, **facts):
    """A released file that our own server has."""
    address = f"http://127.0.0.1:{server.server_port}/file"
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/octet-stream", **(headers or {})}
    server.pages["/file"] = (status, headers, body)
    entry = Released("test-model", "a model for tests", address, "test-model.ckpt", **facts)
    monkeypatch.setitem(ALL, entry.name, entry)
    return entry


def test_names_are_looked_for_as_path_then_weights_folder_then_cache(own_folders):
    model = (REFERENCE / "vqgan_tiny" / "vqgan.ckpt").read_bytes()
    cached = weights.cache() / "ucf101-vqgan.ckpt"
    chosen = own_folders / "weights" / "ucf101-vqgan.ckpt"
    for path in (cached, chosen, own_folders / "ucf101-vqgan"):  # each is preferred to the one before
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model)
        found = weights.find("ucf101-vqgan")
        assert found.resolve() == path.resolve()
        assert tats.load_vqgan("ucf101-vqgan").n_codes == 64


def test_a_converted_folder_stands_for_its_name(own_folders):
    tats.save(tats.load_vqgan(REFERENCE / "vqgan_tiny" / "vqgan.ckpt"), own_folders / "weights" / "sky-vqgan")
    assert tats.load_vqgan("sky-vqgan").n_codes == 64


def test_what_is_missing_is_told_in_one_line():
    with pytest.raises(UserError) as error:
        tats.load_vqgan("ucf101-vqgan")
    line = str(error.value)
    assert "\n" not in line and "tats weights get ucf101-vqgan" in line and "drive.google.com" in line
    with pytest.raises(UserError, match=r"--vqvae ucf101-vqgn .*did you mean ucf101-vqgan\?.*tats weights get"):
        weights.find("ucf101-vqgn", "--vqvae")
    with pytest.raises(UserError, match=r"copy it from there"):
        weights.find("i3d-plain")
    Path("models").mkdir()
    Path("models/last.ckpt").touch()
    with pytest.raises(UserError, match=r"no such file or folder; did you mean 'last\.ckpt'"):
        weights.find("models/lst.ckpt", "--vqvae")
    with pytest.raises(UserError, match="no path given"):
        weights.find("")


def test_a_file_is_fetched_with_progress_and_checked(server, monkeypatch, own_folders):
    body = bytes(range(256)) * 20_000
    served(server, monkeypatch, body, size=len(body), sha256=hashlib.sha256(body).hexdigest())
    said = []
    path = weights.get("test-model", say=said.append)
    assert path == own_folders / "weights" / "test-model.ckpt" and path.read_bytes() == body
    assert any("(100 %)" in line for line in said) and len(said) > 3
    assert not list(path.parent.glob("*.part"))
    assert weights.find("test-model") == path
    server.pages.clear()
    assert weights.get("test-model", say=said.append) == path and "there already" in said[-1]


@pytest.mark.parametrize(
    "facts, headers, status, message",
    [
        ({"size": 7}, {}, 200, "5 bytes arrived, the file has 7"),
        ({"sha256": "00"}, {}, 200, "has the sha256"),
        ({"unpacked_sha256": "00"}, {}, 200, "no packed file"),
        ({}, {"Content-Type": "text/html; charset=utf-8"}, 200, "answers with a page instead of the file"),
        ({}, {"Content-Length": "9"}, 200, r"stopped after|does not answer"),
        ({}, {}, 403, "does not answer with the file"),
    ],
)
def test_a_wrong_answer_leaves_nothing_behind(server, monkeypatch, own_folders, facts, headers, status, message):
    served(server, monkeypatch, b"hello", headers, status, **facts)
    with pytest.raises(UserError, match=message):
        weights.get("test-model", say=lambda line: None)
    assert list((own_folders / "weights").iterdir()) == []


def test_packed_files_are_checked_by_what_they_hold(server, monkeypatch):
    body = gzip.compress(b"merges")
    entry = served(server, monkeypatch, body, unpacked_sha256=hashlib.sha256(b"merges").hexdigest())
    assert weights.get(entry.name, say=lambda line: None).read_bytes() == body
    monkeypatch.setitem(ALL, entry.name, dataclasses.replace(entry, unpacked_sha256="00", file="other"))
    with pytest.raises(UserError, match="unpacks to the sha256"):
        weights.get(entry.name, say=lambda line: None)


def test_nobody_listening_is_one_line(monkeypatch):
    entry = Released("test-model", "a model for tests", "http://127.0.0.1:9/file", "test-model.ckpt")
    monkeypatch.setitem(ALL, entry.name, entry)
    with pytest.raises(UserError, match=r"does not answer with the file .* put it by hand at"):
        weights.get("test-model", say=lambda line: None)


def test_pages_are_turned_into_direct_addresses():
    assert weights.direct("https://drive.google.com/file/d/abc_-1") == (
        "https://drive.usercontent.google.com/download?id=abc_-1&export=download&confirm=t"
    )
    assert weights.direct("https://www.dropbox.com/s/x/y.zip?dl=0") == "https://www.dropbox.com/s/x/y.zip?dl=1"
    assert weights.direct("https://example.org/a.pt") == "https://example.org/a.pt"


def test_the_verb_lists_every_name_and_refuses_others(capsys):
    weights.main(["list"])
    listed = capsys.readouterr().out
    assert all(entry.name in listed for entry in ALL.values())
    weights.main(["--help"])
    assert "tats weights get NAME" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown name 'sky-vqgn'; did you mean 'sky-vqgan'"):
        weights.main(["get", "sky-vqgn"])
    with pytest.raises(UserError, match="is neither"):
        weights.main(["fetch", "sky-vqgan"])
    with pytest.raises(UserError, match="can't be fetched"):
        weights.main(["get", "i3d-plain"])


def test_every_released_model_stands_in_the_docs_with_its_address():
    text = (DOCS / "released.md").read_text()
    for entry in MODELS:
        assert f"`{entry.name}`" in text and entry.address in text, entry.name
    for entry in NETWORKS:
        assert f"`{entry.name}`" in text and (entry.address or entry.file) in text, entry.name
    assert len(ALL) == len(MODELS) + len(NETWORKS) and len({entry.file for entry in ALL.values()}) == len(ALL)
