"""Downloads from a server on this machine: size, checksum, progress, and nothing kept of what went wrong."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading

import datasets_layouts as layouts
import pytest

from bayesrec import datasets
from bayesrec.datasets import download
from bayesrec.errors import DataError


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.pages.get(self.path)
        if body is None:
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        if self.path not in self.server.sizeless:
            self.send_header("Content-Length", str(len(body) + self.server.missing.get(self.path, 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as here:
        here.pages, here.missing, here.asked, here.sizeless = {}, {}, [], set()
        here.url = f"http://127.0.0.1:{here.server_port}/"
        thread = threading.Thread(target=here.serve_forever)
        thread.start()
        yield here
        here.shutdown()
        thread.join()


@pytest.fixture
def site(server, tmp_path):
    """The server with ml-1m.zip and its sum, in the format of md5sum."""
    body = layouts.zipped(layouts.ml_1m(tmp_path / "made")).read_bytes()
    server.pages = {"/ml-1m.zip": body, "/ml-1m.zip.md5": f"{hashlib.md5(body).hexdigest()}  ml-1m.zip\n".encode()}
    return server


@pytest.mark.parametrize("name", ["ml-1m", "ml-1m.zip"])
def test_the_edition_is_fetched_once(name, site, tmp_path, capsys):
    place = tmp_path / "data" / name
    data = datasets.movielens(place, download=True, _site=site.url)
    assert len(data.ratings) == 3
    assert data.name == "ml-1m"
    error = capsys.readouterr().err
    size = len(site.pages["/ml-1m.zip"]) / 1e6
    assert f"ml-1m.zip: {size:.1f} MB from {site.url}ml-1m.zip" in error
    assert "%" not in error, "no bar where standard error is no terminal"
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["ml-1m.zip"]
    asked = list(site.asked)
    datasets.movielens(place, download=True, _site=site.url)
    assert site.asked == asked, "what is there is not fetched again"


def test_a_folder_that_is_there_is_read_without_network(site, tmp_path):
    folder = layouts.ml_csv(tmp_path, "ml-1m")
    assert datasets.movielens(folder, download=True, _site=site.url).ratings["item"].tolist() == [17, 25, 17]
    assert site.asked == []


def test_the_other_format_of_sums_and_no_stated_size(site, tmp_path, capsys):
    text = site.pages["/ml-1m.zip.md5"].split()[0].decode().upper()
    site.pages["/ml-1m.zip.md5"] = f"MD5 (ml-1m.zip) = {text}\n".encode()
    site.sizeless.add("/ml-1m.zip")
    assert download.fetch(f"{site.url}ml-1m.zip", tmp_path / "x.zip").read_bytes() == site.pages["/ml-1m.zip"]
    assert "size not stated" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["content", "sum", "no sum", "short", "404"])
def test_nothing_is_kept_of_a_failed_transfer(fault, site, tmp_path):
    if fault == "content":
        site.pages["/ml-1m.zip"] = site.pages["/ml-1m.zip"][:-1] + b"x"
    elif fault == "sum":
        site.pages["/ml-1m.zip.md5"] = b"<html>moved</html>"
    elif fault == "no sum":
        del site.pages["/ml-1m.zip.md5"]
    elif fault == "short":
        site.missing["/ml-1m.zip"] = 100
    else:
        site.pages.clear()
    message = {
        "content": r"MD5 sum [0-9a-f]{32}, not [0-9a-f]{32} as published; nothing was kept",
        "sum": "holds no MD5 sum",
        "no sum": r"answers 404 .*fetch http.*ml-1m.zip by hand, put it at .*ml-1m.zip",
        "short": r"cannot be fetched \(IncompleteRead",
        "404": "answers 404",
    }[fault]
    place = tmp_path / "data"
    with pytest.raises(DataError, match=message):
        datasets.movielens(place / "ml-1m", download=True, _site=site.url)
    assert list(place.iterdir()) == []


def test_offline_says_what_to_fetch_by_hand(tmp_path):
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with pytest.raises(
            DataError, match=rf"cannot be fetched \(.*\); fetch {url}ml-1m.zip by hand, put it at {tmp_path}"
        ):
            datasets.movielens(tmp_path / "ml-1m", download=True, _site=url)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full(site, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "replace", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left.*nothing was kept"):
        datasets.movielens(tmp_path / "data/ml-1m", download=True, _site=site.url)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_place_that_is_no_folder(site, tmp_path):
    layouts.write(tmp_path / "data", "a file")
    with pytest.raises(DataError, match="cannot write to"):
        datasets.movielens(tmp_path / "data/ml-1m", download=True, _site=site.url)


def test_an_edition_that_does_not_exist(site, tmp_path):
    with pytest.raises(DataError, match=r"'ml-1mm' names no MovieLens edition \(did you mean 'ml-1m'\?\)"):
        datasets.movielens(tmp_path / "ml-1mm", download=True, _site=site.url)
    assert site.asked == []


def test_without_download_nothing_is_asked_for(site, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        datasets.movielens(tmp_path / "ml-1m", _site=site.url)
    assert site.asked == []


def test_a_bar_on_a_terminal(site, tmp_path, monkeypatch):
    """rich draws to what claims to be a terminal."""
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    download.fetch(f"{site.url}ml-1m.zip", tmp_path / "ml-1m.zip")
    assert "\x1b[" in screen.getvalue()
