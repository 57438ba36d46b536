"""`quantloom download` against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from quantloom.cli.download import choose, fetch
from quantloom.errors import FileError, InvalidArgument

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"about",
    "tiny-Q4_K_M.gguf": b"GGUF four",
    "tiny-Q8_0-00001-of-00002.gguf": b"GGUF eight, first",
    "tiny-Q8_0-00002-of-00002.gguf": b"GGUF eight, second",
    "mmproj-tiny-Q4_K_M.gguf": b"GGUF projector",
}


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.reply(body=False)

    def do_GET(self) -> None:
        self.reply(body=True)

    def reply(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        name = path.rsplit("/", 1)[-1]
        if path.startswith("/api/models/owner/tiny/tree/"):
            content = json.dumps(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                    for name, data in FILES.items()
                ]
            ).encode()
        elif path.startswith("/api/models/owner/tiny"):
            content = json.dumps(
                {
                    "id": "owner/tiny",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in FILES],
                }
            ).encode()
        elif path.startswith("/owner/tiny/resolve/") and name in FILES:
            content = FILES[name]
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def download(hub: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quantloom", "download", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "HF_ENDPOINT": hub,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
    )


def test_a_quant_is_downloaded(hub: str, tmp_path: Path) -> None:
    done = download(hub, tmp_path, "owner/tiny:q4_k_m")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == FILES["tiny-Q4_K_M.gguf"]


def test_all_parts_of_a_split_file_come_to_a_folder(hub: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    done = download(hub, tmp_path / "home", "owner/tiny:Q8_0", "--directory", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    paths = [Path(path) for path in json.loads(done.stdout)["paths"]]
    assert [path.read_bytes() for path in paths] == [
        FILES["tiny-Q8_0-00001-of-00002.gguf"],
        FILES["tiny-Q8_0-00002-of-00002.gguf"],
    ]
    assert all(path.parent == folder for path in paths)


def test_what_is_not_there_is_named(hub: str, tmp_path: Path) -> None:
    missing = download(hub, tmp_path, "owner/nothing:Q4_K_M")
    assert missing.returncode == 1
    assert "owner/nothing" in missing.stderr.splitlines()[-1]
    wrong = download(hub, tmp_path, "owner/tiny:Q2_K")
    assert wrong.returncode == 1
    assert "Q2_K" in wrong.stderr
    assert "tiny-Q4_K_M.gguf" in wrong.stderr


def test_a_hub_that_cannot_be_reached_is_a_file_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class ConnectError(Exception):
        """As an HTTP library's own: no OSError."""

    def refuse(*arguments: object, **options: object) -> None:
        raise ConnectError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", refuse)
    with pytest.raises(FileError, match=r"^could not download owner/tiny: no route to host$"):
        fetch("owner/tiny:Q8_0")
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: list(FILES))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(FileError, match="could not download owner/tiny"):
        fetch("owner/tiny:Q8_0")
    with pytest.raises(InvalidArgument, match="no file is of quant Q2_K"):
        fetch("owner/tiny:Q2_K")


def test_choosing_a_file() -> None:
    files = list(FILES)
    assert choose(files, "Q4_K_M") == ["tiny-Q4_K_M.gguf"]
    assert len(choose(files, "Q8_0")) == 2
    with pytest.raises(InvalidArgument, match="2 models are there, name one by its quant"):
        choose(files, None)
    with pytest.raises(InvalidArgument, match=r"2 models are of quant Q4_0; .* a-Q4_0.gguf, b-"):
        choose(["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0")
    with pytest.raises(InvalidArgument, match=r"no file is a model; GGUF files .*: imatrix.gguf$"):
        choose(["README.md", "imatrix.gguf"], None)
    with pytest.raises(InvalidArgument, match="no file is of quant Q4_K;"):
        choose(files, "Q4_K")


@pytest.mark.parametrize(
    ("files", "quant", "chosen"),
    [
        (["x-Q4_K_M.gguf", "imatrix.gguf"], None, "x-Q4_K_M.gguf"),
        (["x-Q4_K_M.gguf", "F16/x.IMatrix.gguf", "x-mmproj.gguf"], None, "x-Q4_K_M.gguf"),
        (["x-imatrix-Q4_K_M.gguf", "x-imatrix.gguf"], None, "x-imatrix-Q4_K_M.gguf"),
        (["x-imatrix-IQ4_XS.gguf", "x-imatrix.gguf"], "iq4_xs", "x-imatrix-IQ4_XS.gguf"),
    ],
)
def test_an_importance_matrix_is_no_model(files: list[str], quant: str | None, chosen: str) -> None:
    assert choose(files, quant) == [chosen]


def test_the_parts_of_a_split_file_are_complete() -> None:
    parts = [f"Q8_0/m-{number:05}-of-00012.gguf" for number in range(1, 13)]
    assert choose(parts[::-1], "Q8_0") == parts
    assert choose(["m-00001-of-00001.gguf"], None) == ["m-00001-of-00001.gguf"]
    with pytest.raises(InvalidArgument, match=f"1 of its 12 parts are missing: {parts[4]}$"):
        choose(parts[:4] + parts[5:], "Q8_0")
    with pytest.raises(InvalidArgument, match=f"11 of its 12 .*: {parts[1]}, .* and 3 more$"):
        choose(parts[:1], "Q8_0")
    with pytest.raises(
        InvalidArgument, match=r"Q8_0/m-00000-of-00012.gguf is none of its 12 parts$"
    ):
        choose(["Q8_0/m-00000-of-00012.gguf", *parts], None)
    with pytest.raises(InvalidArgument, match=r"m-00001-of-00000.gguf is none of its 0 parts$"):
        choose(["m-00001-of-00000.gguf"], None)


def test_split_files_of_other_counts_are_other_models() -> None:
    two, three = ([f"m-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)] for count in (2, 3))
    with pytest.raises(InvalidArgument, match="2 models are there"):
        choose(two + three, None)
