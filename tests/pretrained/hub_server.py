"""A hub of one's own: the few answers of huggingface.co that a download asks for."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping

COMMIT = "c" * 40


class _Handler(http.server.BaseHTTPRequestHandler):
    files: Mapping[str, bytes] = {}
    gated = False
    cut = 0
    asked: list[str] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        type(self).asked.append(f"{self.command} {path}")
        if "/owner/name" not in path:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if "/api/" in path and ("/revision/" in path or path.endswith("owner/name")):
            return self._info(path, body)
        if "/api/" in path and "/tree/" in path:
            listed = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in self.files.items()
            ]
            return self._send(200, json.dumps(listed).encode(), {}, body)
        if self.gated:
            said = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}
            return self._send(403, b"{}", said, body)
        data = self.files.get(path.rpartition("/")[2])
        if data is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        head = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        head["Accept-Ranges"] = "bytes"
        if start:
            type(self).asked.append(f"{path} from {start}")
            head["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206 if start else 200, data[start:], head, body)

    def _info(self, path: str, body: bool) -> None:
        if "/revision/" in path and path.rpartition("/")[2] not in ("main", "v1", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        found = {
            "id": "owner/name",
            "sha": COMMIT,
            "siblings": [{"rfilename": name} for name in self.files],
            "tags": [],
            "private": False,
            "downloads": 0,
            "likes": 0,
        }
        return self._send(200, json.dumps(found).encode(), {}, body)

    def _send(self, code: int, data: bytes, head: Mapping[str, str], body: bool) -> None:
        self.send_response(code)
        for name, value in head.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.cut and len(data) > self.cut:  # the connection breaks off, once
            data, type(self).cut = data[: self.cut], 0
            self.close_connection = True
        if body:
            self.wfile.write(data)

    def log_message(self, *args) -> None:
        del args


@contextlib.contextmanager
def serving(
    files: Mapping[str, bytes], *, gated: bool = False, cut: int = 0
) -> Iterator[tuple[str, list[str]]]:
    """(address, what was asked) while a server holds these files as owner/name.

    The first answer that is longer than `cut` bytes breaks off there.
    """
    state = {"files": files, "gated": gated, "cut": cut, "asked": []}
    handler = type("Handler", (_Handler,), state)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
