"""A server on loopback that is shaped like the model hub, with the faults that a network has."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What the hub serves, and how it misbehaves.

    Attributes:
        files: Content by `owner/name/file`.
        commit: The revision of every repository.
        cut_after: Break a download off after so many bytes, once.
        lie: Announce the hash of something else for these files.
        requests: `METHOD path range` of what was asked.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = "a" * 40
    cut_after: int | None = None
    lie: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def in_repo(self, repo: str) -> list[str]:
        return [n.removeprefix(f"{repo}/") for n in self.files if n.startswith(f"{repo}/")]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            self._serve(body=True)

        def _serve(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
            path = self.path.split("?")[0].lstrip("/")
            if path.startswith("api/models/"):
                self._info(path.removeprefix("api/models/"))
            else:
                repo, _, rest = path.partition("/resolve/")
                revision, _, name = rest.partition("/")
                self._file(repo, revision, name, body)

        def _info(self, path: str) -> None:
            repo, _, revision = path.partition("/revision/")
            names = hub.in_repo(repo)
            if not names:
                return self._error("RepoNotFound")
            if revision not in ("", "main", hub.commit):
                return self._error("RevisionNotFound")
            siblings = [{"rfilename": name} for name in names]
            answer = json.dumps({"id": repo, "sha": hub.commit, "siblings": siblings}).encode()
            self._answer(200, {"Content-Type": "application/json"}, answer)

        def _file(self, repo: str, revision: str, name: str, body: bool) -> None:
            content = hub.files.get(f"{repo}/{name}")
            if content is None:
                return self._error("EntryNotFound")
            announced = content + b"!" if f"{repo}/{name}" in hub.lie else content
            digest = hashlib.sha256(announced).hexdigest()
            headers = {
                "X-Repo-Commit": hub.commit,
                "ETag": f'"{digest}"',
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "Accept-Ranges": "bytes",
            }
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            if start:
                end = len(content)
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{end}"
            self._answer(206 if start else 200, headers, content[start:], send=body)

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, *, send: bool = True
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not send:
                return
            if hub.cut_after is not None and len(content) > hub.cut_after:
                content, hub.cut_after = content[: hub.cut_after], None
                self.close_connection = True
            self.wfile.write(content)

        def _error(self, code: str) -> None:
            self._answer(404, {"X-Error-Code": code, "X-Error-Message": code}, b"{}")

    return Handler


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub that serves until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
