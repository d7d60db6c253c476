import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sdk.datasets import DatasetError
from sdk.datasets.download import SOURCES, Archive, Source, download, fetch, unpack

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def server():
    """Serves CONTENT with ranges at /file, and /short which breaks off halfway the first time."""

    class Handler(BaseHTTPRequestHandler):
        asked: list = []  # noqa: RUF012
        files: dict = {"file": CONTENT, "short": CONTENT}  # noqa: RUF012

        def do_GET(self):
            name = self.path[1:]
            data = self.files.get(name)
            wanted = self.headers.get("Range")
            self.asked.append((name, wanted))
            if data is None:
                self.send_error(404)
                return
            start = int(wanted[6:-1]) if wanted else 0
            if wanted and start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) // 2 if name == "short" and not wanted else len(data)
            self.wfile.write(data[start:end])

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", Handler
        running.shutdown()


def test_fetch_resumes_and_compares(server, tmp_path):
    address, handler = server
    seen = []
    file = fetch(f"{address}/file", tmp_path / "a", progress=lambda *step: seen.append(step))
    assert file.read_bytes() == CONTENT
    assert seen[-1] == ("a", len(CONTENT), len(CONTENT))
    checksum = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DatasetError, match="short"):
        fetch(f"{address}/short", tmp_path / "b", checksum=checksum)
    assert not (tmp_path / "b").exists()
    assert fetch(f"{address}/short", tmp_path / "b", checksum=checksum).read_bytes() == CONTENT
    assert handler.asked[-1] == ("short", f"bytes={len(CONTENT) // 2}-")
    (tmp_path / "c.part").write_bytes(CONTENT)
    assert fetch(f"{address}/file", tmp_path / "c", checksum=checksum).read_bytes() == CONTENT
    with pytest.raises(DatasetError, match="checksum differs"):
        fetch(f"{address}/file", tmp_path / "d", checksum="md5:00")
    with pytest.raises(DatasetError, match="404"):
        fetch(f"{address}/none", tmp_path / "e")
    assert not list(tmp_path.glob("d*"))


def test_download_unpacks_once(server, tmp_path, monkeypatch):
    address, handler = server
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/b.txt", "text")
    handler.files["x.zip"] = stream.getvalue()
    monkeypatch.setitem(SOURCES, "coco", Source("page", "layout", (Archive(f"{address}/x.zip", folder="in"),)))
    for _ in range(2):
        assert (download("coco", tmp_path) / "in" / "a" / "b.txt").read_text() == "text"
    assert len([name for name, _ in handler.asked if name == "x.zip"]) == 1
    with pytest.raises(DatasetError, match="registration"):
        download("cityscapes", tmp_path)
    with pytest.raises(DatasetError, match="no such dataset"):
        download("nothing", tmp_path)


def test_archives_stay_in_their_folder(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("../outside.txt")
        archive.addfile(info, io.BytesIO())
    with pytest.raises(DatasetError):
        unpack(tmp_path / "x.tar", tmp_path / "inside")
    assert not (tmp_path / "outside.txt").exists()
    (tmp_path / "y.zip").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"y\.zip"):
        unpack(tmp_path / "y.zip", tmp_path / "inside")


def test_addresses_are_https():
    for source in SOURCES.values():
        assert all(archive.address.startswith("https://") for archive in source.archives)
