import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sdk.models.weights.download import SecureRedirects, cache_folder, obtain
from sdk.models.weights.errors import WeightsError

CONTENT = bytes(range(256)) * 2000
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
ADDRESS = f"http://weights.invalid/zoo/row/row-{DIGITS}.pth"
NAME = f"row-{DIGITS}.pth"


class Server(ThreadingHTTPServer):
    """Serves ``CONTENT`` with the faults of ``faults``, one a request, then without."""

    daemon_threads = True
    faults: list[str]
    requests: list[str]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.requests = [], []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_) -> None: ...

    def do_GET(self) -> None:
        span = self.headers.get("Range", "")
        self.server.requests.append(f"{self.path} {span}".strip())
        fault = self.server.faults.pop(0) if self.server.faults else ""
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and fault != "no ranges" else 0
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        claimed = {"longer": len(body) + 1000, "shorter": len(body) - 1000}.get(fault, len(body))
        self.send_response(206 if start else 200)
        if start:
            first = 0 if fault == "other range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if fault != "no length":
            self.send_header("Content-Length", str(claimed))
        self.end_headers()
        if fault == "flipped":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault in ("breaks off", "stalls"):
            body = body[: len(body) // 3]
        self.wfile.write(body)
        self.wfile.flush()
        if fault == "stalls":
            time.sleep(1.5)


@pytest.fixture
def server(monkeypatch, tmp_path: Path) -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("SDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SDK_WEIGHTS_MIRROR", f"http://127.0.0.1:{made.server_address[1]}")
    yield made
    made.shutdown()
    made.server_close()


def get() -> Path:
    return obtain(ADDRESS, DIGITS, timeout=0.5, pause=0.01)


def in_cache() -> list[str]:
    return sorted(file.name for file in cache_folder().iterdir() if not file.name.endswith(".lock"))


@pytest.mark.parametrize(
    "faults",
    [[], ["breaks off"], ["stalls"], ["longer"], ["shorter"], ["no length"], ["503", "429"], ["breaks off"] * 6,
     ["breaks off", "no ranges"], ["breaks off", "other range"], ["breaks off", "flipped"], ["stalls", "503"]],
    ids=" then ".join,
)  # fmt: skip
def test_faults_are_overcome(server: Server, faults: list[str]) -> None:
    server.faults = list(faults)
    assert get().read_bytes() == CONTENT
    assert in_cache() == [NAME]
    asked = len(server.requests)
    get()
    assert len(server.requests) == asked, "the cache holds it"


def test_goes_on_where_it_stopped(server: Server) -> None:
    server.faults = ["breaks off"]
    get()
    assert server.requests == [f"/zoo/row/{NAME}", f"/zoo/row/{NAME} bytes={len(CONTENT) // 3}-"]


def test_goes_on_where_an_earlier_process_stopped(server: Server) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / f".{NAME}.part").write_bytes(CONTENT[:1000])
    get()
    assert server.requests == [f"/zoo/row/{NAME} bytes=1000-"]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(CONTENT), CONTENT + b"x"])
def test_foreign_part_is_thrown_away(server: Server, left: bytes) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / f".{NAME}.part").write_bytes(left)
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("faults", [["flipped"] * 2, ["shorter"] * 2, ["404"] * 2], ids=" then ".join)
def test_the_wrong_file_is_an_error_and_not_kept(server: Server, faults: list[str]) -> None:
    server.faults = faults
    with pytest.raises(WeightsError, match=DIGITS):
        get()
    assert in_cache() == []


def test_gives_up_in_the_end_and_keeps_what_it_has(server: Server) -> None:
    server.faults = ["breaks off", *["503"] * 5]
    with pytest.raises(WeightsError, match=r"503.*170666 bytes so far.*SDK_WEIGHTS_MIRROR"):
        get()
    assert in_cache() == [f".{NAME}.part"]
    assert get().read_bytes() == CONTENT


def test_damaged_cache_is_fetched_anew(server: Server) -> None:
    file = get()
    file.write_bytes(CONTENT[:-1] + b"x")
    assert get().read_bytes() == CONTENT


def test_mirror_by_name(server: Server) -> None:
    server.faults = ["404"]
    assert get().read_bytes() == CONTENT
    assert server.requests == [f"/zoo/row/{NAME}", f"/{NAME}"]


def test_many_at_once_download_once(server: Server) -> None:
    threads = [threading.Thread(target=get) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


@pytest.mark.parametrize("place", [NAME, f"zoo/row/{NAME}"])
def test_offline_folder(monkeypatch, tmp_path: Path, place: str) -> None:
    monkeypatch.setenv("SDK_WEIGHTS_MIRROR", str(tmp_path))
    with pytest.raises(WeightsError, match="has neither"):
        get()
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(CONTENT)
    assert get() == file
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=f"instead of {DIGITS}"):
        get()
    assert file.read_bytes() == b"damaged", "the user's file stays"


def test_only_https_without_mirror(monkeypatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setenv("SDK_CACHE", str(tmp_path))
    monkeypatch.delenv("SDK_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setattr("sdk.models.weights.download.receive", lambda address, *_: asked.append(address) or False)
    with pytest.raises(WeightsError):
        get()
    assert set(asked) == {ADDRESS.replace("http:", "https:")}
    with pytest.raises(WeightsError, match="not an https address"):
        obtain("ftp://host/a.pth", None)


def test_no_redirection_from_https_to_http() -> None:
    from urllib.request import Request

    with pytest.raises(WeightsError, match="not https"):
        SecureRedirects().redirect_request(Request("https://a/b"), None, 302, "", {}, "http://a/b")
