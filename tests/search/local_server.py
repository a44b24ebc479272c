"""A server of this machine in place of the public ones: what it has, what it sent, what it does."""

import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

BLOCK = 1 << 14


@dataclass
class Server:
    """Files by address without scheme and query, for example "host/folder/name.tar"."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of content by address."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Address and headers of every request."""
    cut: dict[str, int] = field(default_factory=dict)
    """Bytes after which an answer breaks off, once."""
    stall: dict[str, int] = field(default_factory=dict)
    """Bytes after which an answer waits, once, until the client is gone."""
    codes: dict[str, int] = field(default_factory=dict)
    """Refusals."""
    moved: dict[str, str] = field(default_factory=dict)
    """Where a request is referred to."""
    has_ranges: bool = True
    has_length: bool = True

    def address(self, url: str) -> str:
        """Where this server has what a public address names."""
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        return f"http://127.0.0.1:{self.port}/{parts.netloc}{parts.path}{query}"


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers until the end."""
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # the client is gone
                answer(server, self)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        server.port = httpd.server_port
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()


def answer(server: Server, request: http.server.BaseHTTPRequestHandler) -> None:
    """Send what was asked for, from where it was asked for."""
    key = request.path.partition("?")[0].lstrip("/")
    server.asked.append((key, dict(request.headers)))
    if key in server.moved:
        request.send_response(302)
        request.send_header("Location", server.moved[key])
        request.end_headers()
        return
    code = server.codes.get(key) or (200 if key in server.files else 404)
    if code != 200:
        request.send_error(code)
        return
    data = server.files[key]
    wanted = request.headers.get("Range", "") if server.has_ranges else ""
    start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
    if start >= len(data) > 0:
        request.send_error(416)
        return
    request.send_response(206 if wanted else 200)
    if wanted:
        request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    if server.has_length:  # else the end of the connection is that of the file
        request.send_header("Content-Length", str(len(data) - start))
    request.end_headers()
    stalls = key in server.stall
    end = start + (server.stall if stalls else server.cut).pop(key, len(data))
    for place in range(start, min(end, len(data)), BLOCK):
        block = data[place : min(place + BLOCK, end)]
        server.sent[key] += len(block)  # first: the client may look as soon as it has the block
        request.wfile.write(block)
    if stalls:
        request.wfile.flush()
        request.connection.recv(1)  # b"" once the client is gone
