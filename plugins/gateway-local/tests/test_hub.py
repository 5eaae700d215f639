"""The hub: what is asked of it, over the wire to a loopback server, and what is said when it cannot be asked."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gateway_local.hooks import gateway_stores
from gateway_local.hub import HubStore, parse_uri

from gateway import WeightsError
from gateway.testing.fakes import resources

COMMIT = "0" * 40


class Hub:
    """One repository, org/tiny, as the hub serves it. `fetched` are the files whose bytes were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                files = sorted(str(p.relative_to(hub.folder)) for p in hub.folder.rglob("*") if p.is_file())
                if path.startswith("/api/models/org/tiny/tree/"):
                    rows = [
                        {"type": "file", "path": name, "size": (hub.folder / name).stat().st_size, "oid": COMMIT}
                        for name in files
                    ]
                    return self.send(json.dumps(rows).encode(), body)
                if path.startswith("/api/models/org/tiny"):
                    siblings = [{"rfilename": name} for name in files]
                    return self.send(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
                name = path.partition("/resolve/")[2].partition("/")[2]
                if not path.startswith("/org/tiny/resolve/") or name not in files:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound" if "/org/tiny/" in path else "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                if body:
                    hub.fetched.append(name + (" (part)" if "Range" in self.headers else ""))
                return self.send((hub.folder / name).read_bytes(), body)

            def send(self, data: bytes, body: bool) -> None:
                size, status = len(data), 200
                if (span := self.headers.get("Range")) and body:
                    first, last = span.removeprefix("bytes=").split("-")
                    data, status = data[int(first) : int(last or size) + 1], 206
                self.send_response(status)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub

    folder = Path(shutil.copytree(llama, tmp_path / "repository"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


def test_a_hub_model_is_described_without_its_tensors_and_downloaded_when_read(hub: Hub, tmp_path: Path, llama: Path) -> None:
    store, keys = HubStore(cache_dir=tmp_path / "cache"), resources().keys
    local = resources().weights(str(llama))
    weights = store.open("hf:org/tiny", keys)
    assert dict(weights.tensors) == dict(local.tensors)
    assert weights.json("config.json") == local.json("config.json")
    assert "model.safetensors" not in hub.fetched
    name = "model.norm.weight"
    assert bytes(weights.read(name)) == bytes(local.read(name))
    assert hub.fetched.count("model.safetensors") == 1
    assert not {"pytorch_model.bin", "modeling.py"} & set(hub.fetched)
    hub.fetched.clear()
    assert bytes(store.open("hf:org/tiny", keys).read(name)) == bytes(local.read(name))
    assert store.open("hf:org/tiny/1_Pooling", keys).json("config.json") == {}
    assert hub.fetched == []


def test_a_repository_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'org/other'.*no such repository"):
        HubStore(cache_dir=tmp_path / "cache").open("hf:org/other", resources().keys)


def test_offline_the_cache_is_read_and_a_lack_says_where_it_looked(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(llama, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    store, keys = HubStore(cache_dir=tmp_path), resources().keys
    assert "model.norm.weight" in store.open("hf:org/tiny", keys).tensors
    with pytest.raises(WeightsError, match=r"'org/other'.*" + tmp_path.name + ".*HF_HUB_OFFLINE"):
        store.open("hf:org/other", keys)
    with pytest.raises(WeightsError, match="read only"):
        store.create("hf:org/tiny", keys)
    assert [store.scheme for store in gateway_stores(config={})] == ["hf"]


def test_a_hub_uri_is_an_organisation_and_a_name() -> None:
    assert parse_uri("hf:org/name") == ("org/name", None, "")
    assert parse_uri("hf:org/name@v1/1_Pooling") == ("org/name", "v1", "1_Pooling")
    for wrong in ("hf:name", "hf:", "hf:org//name", "hf:org/../x", "hf:org/name/.."):
        with pytest.raises(WeightsError, match="hf:org/name"):
            parse_uri(wrong)
