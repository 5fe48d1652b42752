"""A Hugging Face Hub on the loopback, for the real clients, that misbehaves as a test asks it to.

It keeps dataset repositories in memory: commits, small files by their git hash, large ones in an object store by SHA-256. Clients reach it
with ``HF_ENDPOINT=URL HF_HUB_DISABLE_XET=1 HF_TOKEN=TOKEN``. ``faults`` are used up in order by the requests that they match.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.judge_server import Loopback

TOKEN = "hf_loopbackTokenOfNobody"
Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


def reply(value: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


def failure(status: int, message: str = "no", **headers: str) -> Answer:
    return reply({"error": message}, status, **{"X-Error-Message": message, **headers})


@dataclass
class Fault:
    """What goes wrong with requests ``METHOD /path``: another answer than the right one, or, where that is None, a connection that breaks
    in the middle of the request, or, where it is ``lost``, after the request was carried out."""

    pattern: str
    answer: Answer | None = None
    times: int = 1
    lost: bool = False


@dataclass
class Blob:
    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": len(self.data), "pointerSize": 130} if self.large else None
        return {"type": "file", "path": path, "size": len(self.data), "oid": self.git, **({"lfs": lfs} if lfs else {})}


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, dict[str, Blob]]] = field(default_factory=list)

    def commit(self, files: dict[str, Blob]) -> str:
        listing = repr((len(self.commits), sorted((path, blob.git) for path, blob in files.items())))
        self.commits.append((hashlib.sha1(listing.encode()).hexdigest(), files))
        return self.commits[-1][0]

    def at(self, revision: str) -> dict[str, Blob] | None:
        return self.files if revision == "main" else dict(self.commits).get(revision)

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Blob]:
        return self.commits[-1][1]


class Hub(Loopback):
    """``requests`` are the lines ``METHOD /path`` received; ``uploads`` counts the objects stored, by SHA-256."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: Counter[str] = Counter()
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.watch: Callable[[str], None] = lambda line: None  # called with every request before its body is read
        self._lock = threading.RLock()
        super().__init__(_handler(self))

    def content(self, repo: str) -> dict[str, str]:
        """The files of a repository with the hash of each."""
        return {path: blob.sha256 for path, blob in sorted(self.repos[repo].files.items())}

    def edit(self, repo: str, path: str, data: bytes) -> None:
        """A commit that somebody makes in the browser."""
        with self._lock:
            files = self.repos[repo].files
            self.repos[repo].commit({**files, path: Blob(data, path.endswith(".parquet"))})

    def fault(self, line: str) -> Fault | None:
        self.watch(line)
        with self._lock:
            self.requests.append(line)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> Answer:
        """The right answer to a request."""
        if token is not None and token != TOKEN:
            return failure(401, "Invalid credentials in Authorization header")
        with self._lock:
            for verb, pattern, handle in _ROUTES:
                if verb == ("GET" if method == "HEAD" else method) and (match := re.fullmatch(pattern, path)):
                    repo = match.groupdict().get("repo")
                    if repo is not None and (repo not in self.repos or (self.repos[repo].private and token is None)):
                        return failure(404, "Repository not found", **{"X-Error-Code": "RepoNotFound"})
                    return handle(self, body, **match.groupdict())
        return failure(404, f"no such route: {method} {path}")


def _create(hub: Hub, body: bytes) -> Answer:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if asked["type"] != "dataset":
        return failure(400, "only datasets are kept here")
    url = {"url": f"{hub.url}/datasets/{name}", "name": name}
    if name in hub.repos:
        return reply({**url, "error": "You already created this dataset repo"}, 409)
    hub.repos[name] = Repo(asked.get("visibility") == "private")
    hub.repos[name].commit({".gitattributes": Blob(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n", False)})
    return reply(url)


def _info(hub: Hub, body: bytes, repo: str, revision: str | None = None) -> Answer:
    known = hub.repos[repo]
    files = known.at(revision or "main")
    if files is None:
        return failure(404, "no such revision", **{"X-Error-Code": "RevisionNotFound"})
    sha = known.head if revision in (None, "main") else revision
    names = [{"rfilename": path} for path in files]
    return reply({"id": repo, "sha": sha, "private": known.private, "siblings": names, "tags": [], "downloads": 0, "likes": 0})


def _preupload(hub: Hub, body: bytes, repo: str, revision: str) -> Answer:
    files = hub.repos[repo].files
    modes = []
    for asked in json.loads(body)["files"]:
        there, large = files.get(asked["path"]), asked["path"].endswith(".parquet")
        oid = None if there is None else there.sha256 if there.large else there.git
        modes.append({"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
    return reply({"files": modes})


def _batch(hub: Hub, body: bytes, repo: str) -> Answer:
    objects = []
    for asked in json.loads(body)["objects"]:
        upload = {"href": f"{hub.url}/objects/{asked['oid']}"}
        verify = {"href": f"{hub.url}/verify"}
        missing = {} if asked["oid"] in hub.objects else {"actions": {"upload": upload, "verify": verify}}
        objects.append({**asked, **missing})
    return reply({"transfer": "basic", "objects": objects})


def _store(hub: Hub, body: bytes, oid: str) -> Answer:
    if hashlib.sha256(body).hexdigest() != oid:
        return failure(400, "the content does not have this hash")
    hub.objects[oid] = body
    hub.uploads[oid] += 1
    return reply({})


def _verify(hub: Hub, body: bytes) -> Answer:
    return reply({}) if json.loads(body)["oid"] in hub.objects else failure(404, "no such object")


def _commit(hub: Hub, body: bytes, repo: str, revision: str) -> Answer:
    known = hub.repos[repo]
    files = dict(known.files)
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header" and value.get("parentCommit", known.head) != known.head:
            return failure(412, "A commit has happened since. Please refresh and try again.")
        if item["key"] == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif item["key"] == "lfsFile":
            if value["oid"] not in hub.objects:
                return failure(400, f"{value['path']} points to an object that was never uploaded")
            files[value["path"]] = Blob(hub.objects[value["oid"]], True)
        elif item["key"] == "deletedFile":
            del files[value["path"]]
    oid = known.commit(files)
    return reply({"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/datasets/{repo}/commit/{oid}"})


def _tree(hub: Hub, body: bytes, repo: str, revision: str, folder: str | None) -> Answer:
    files = hub.repos[repo].at(revision)
    prefix = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in (files or {}).items() if path.startswith(prefix)}
    if files is None or (folder and not inside):
        return failure(404, "no such entry", **{"X-Error-Code": "EntryNotFound"})
    folders = sorted({path.rsplit("/", 1)[0] for path in inside if "/" in path} - {folder})
    return reply([{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders] + [b.entry(p) for p, b in inside.items()])


def _paths_info(hub: Hub, body: bytes, repo: str, revision: str) -> Answer:
    files = hub.repos[repo].at(revision) or {}
    entries = [files[path].entry(path) for path in json.loads(body)["paths"] if path in files]
    wanted = [p for p in json.loads(body)["paths"] if p not in files and any(f.startswith(f"{p}/") for f in files)]
    return reply(entries + [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in wanted])


def _resolve(hub: Hub, body: bytes, repo: str, revision: str, path: str) -> Answer:
    files = hub.repos[repo].at(revision)
    if files is None or path not in files:
        return failure(404, "no such entry", **{"X-Error-Code": "EntryNotFound"})
    blob = files[path]
    headers = {"X-Repo-Commit": hub.repos[repo].head, "ETag": f'"{blob.sha256 if blob.large else blob.git}"', "Accept-Ranges": "bytes"}
    return 200, headers, blob.data


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", lambda hub, body: reply({"errors": [], "warnings": []})),
    ("GET", f"/api/datasets/{_REPO}", _info),
    ("GET", f"/api/datasets/{_REPO}/revision/(?P<revision>[^/]+)", _info),
    ("POST", f"/api/datasets/{_REPO}/preupload/(?P<revision>[^/]+)", _preupload),
    ("POST", f"/datasets/{_REPO}.git/info/lfs/objects/batch", _batch),
    ("PUT", "/objects/(?P<oid>[0-9a-f]{64})", _store),
    ("POST", "/verify", _verify),
    ("POST", f"/api/datasets/{_REPO}/commit/(?P<revision>[^/]+)", _commit),
    ("GET", f"/api/datasets/{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", _tree),
    ("POST", f"/api/datasets/{_REPO}/paths-info/(?P<revision>[^/]+)", _paths_info),
    ("GET", f"/datasets/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _resolve),
)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            path = unquote(urlsplit(self.path).path)
            fault = hub.fault(f"{self.command} {path}")
            if fault is not None and fault.answer is None and not fault.lost:
                self.rfile.read(min(int(self.headers.get("Content-Length", 0)) // 2, 1000))
                self._break()
                return
            body = self._body()
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            answer = fault.answer if fault is not None and fault.answer else hub.answer(self.command, path, body, token if scheme else None)
            if fault is not None and fault.lost:
                self._break()
            else:
                self._send(*answer)

        def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
            if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
                first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
                headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
                status, data = 206, data[first : last + 1]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                length = int(self.headers.get("Content-Length", 0))
                data = self.rfile.read(length)
                if len(data) < length:
                    raise ConnectionError("the client went away in the middle of a request")
                return data
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _break(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
