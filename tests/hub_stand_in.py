"""The part of the hub's HTTP interface that pushing and pulling use, on the loopback device, in a thread of the test.

Made from the requests that huggingface_hub sends (its hf_api.py, _commit_api.py and lfs.py) and the hub's answers as
they are documented there. It keeps repositories in memory and every request in `requests`.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories by id, each a dict of file name → bytes. `commit_of` names what is there now."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.refuse: set[str] = set()
        """Parts of paths that are answered with 403."""
        self.break_after: dict[str, int] = {}
        """File name → the connection breaks, once, when so many bytes of it were sent."""
        self.served: dict[str, bytes] = {}
        """File name → what is sent in place of what the listing says."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit_of(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.repos[repo].items())).encode()).hexdigest()

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """Headers of the requests of this method whose path has this part."""
        return [headers for verb, path, headers in self.requests if verb == method and part in path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is what some tests want."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def do_PUT(self) -> None:
        path, data = self._start("PUT")
        if path is not None:
            self.server.objects[path.removeprefix("/lfs/")] = data
            self._json({})

    def do_POST(self) -> None:
        path, data = self._start("POST")
        if path is None:
            return
        if path == "/api/repos/create":
            told = json.loads(data)
            repo = f"{told['organization'] or 'someone'}/{told['name']}"
            self.server.created.append(told)
            self.server.repos.setdefault(repo, {})
            self._json({"url": f"{self.server.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._json({"files": [_mode(file) for file in json.loads(data)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            self._json({"transfer": "basic", "objects": [self._lfs(o) for o in json.loads(data)["objects"]]})
        elif "/commit/" in path:
            self._commit(path.split("/api/models/")[1].split("/commit/")[0], data)
        else:
            self._json({"error": "no such place"}, 404)

    def _start(self, method: str) -> tuple[str | None, bytes]:
        path = unquote(urlsplit(self.path).path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((method, path, dict(self.headers)))
        if any(part in path for part in self.server.refuse):
            self._json({"error": "not yours"}, 403)
            return None, data
        return path, data

    def _lfs(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid = wanted["oid"]
        if oid in self.server.objects:
            return wanted
        return {**wanted, "actions": {"upload": {"href": f"{self.server.url}/lfs/{oid}"}}}

    def _commit(self, repo: str, data: bytes) -> None:
        for line in data.splitlines():
            told = json.loads(line)
            if told["key"] == "file":
                self.server.repos[repo][told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            elif told["key"] == "lfsFile":
                self.server.repos[repo][told["value"]["path"]] = self.server.objects[told["value"]["oid"]]
        oid = self.server.commit_of(repo)
        self._json({"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None})

    def _get(self, *, body: bool) -> None:
        path, _ = self._start(self.command)
        if path is None:
            return
        repo = next((repo for repo in self.server.repos if f"/{repo}" in path), None)
        if repo is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in path:
            self._file(repo, path.split("/resolve/")[1].partition("/")[2], body=body)
        else:
            self._json(self._info(repo))

    def _info(self, repo: str) -> dict[str, Any]:
        siblings = []
        for name, data in self.server.repos[repo].items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _blob(data)}
            if _is_large(name):
                sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(sibling)
        return {"id": repo, "modelId": repo, "sha": self.server.commit_of(repo), "siblings": siblings, "private": True}

    def _file(self, repo: str, name: str, *, body: bool) -> None:
        data = self.server.served.get(name, self.server.repos[repo].get(name))
        if data is None:
            self._json({"error": "no such file"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        breaks = self.server.break_after.pop(name, None)
        if body:
            self.wfile.write(data[start:breaks])
        if breaks is not None:
            self.close_connection = True

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".wav"))


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    return {"path": file["path"], "uploadMode": "lfs" if _is_large(file["path"]) else "regular", "shouldIgnore": False}


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub for the length of a block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(5)
