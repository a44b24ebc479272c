"""What the tracking faults are made with: a real MLflow server, and a proxy that misbehaves."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

START_S = 240
"""A server imports for seconds on a quiet machine, and minutes on a loaded one."""

LEAN = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Environment of a server without the eight processes for jobs that nobody sends."""

Mood = Literal["pass", "error", "error_after", "swallow", "silent", "slow"]
"""What a proxy does: hand on; answer 500 instead, or after handing on; hand on and never answer;
never hand on; hand on late."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class MlflowServer:
    """`mlflow server` over a database, in a process group of its own."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        self.line += ["--port", str(self.port), "--workers", "1", "--backend-store-uri", store]
        self.line += ["--artifacts-destination", str(folder / "artifacts")]
        self.variables = {**os.environ, **LEAN}

    def start(self) -> Self:
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                self.line,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self.variables,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    text = (self._folder / "server.log").read_text()[-3000:]
                    raise RuntimeError(f"the MLflow server did not start: {text}") from None
                time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Proxy:
    """Stands between a client and a server, in one of several moods. A context manager."""

    def __init__(self, port: int) -> None:
        self.mood: Mood = "pass"
        self.delay_s = 0.5
        self._released = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy._handle(self, port)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, client: BaseHTTPRequestHandler, port: int) -> None:
        mood = self.mood
        body = client.rfile.read(int(client.headers.get("Content-Length", 0)))
        if mood == "slow":
            self._released.wait(self.delay_s)
        if mood in ("error", "silent"):
            status, answer, kind = 500, b'{"error_code": "INTERNAL_ERROR"}', "application/json"
        else:
            status, answer, kind = self._hand_on(client, body, port)
        if mood in ("swallow", "silent"):
            self._released.wait(60)
            return
        if mood == "error_after":
            status, answer, kind = 500, b"broken on the way back", "text/plain"
        try:
            client.send_response(status)
            client.send_header("Content-Type", kind)
            client.send_header("Content-Length", str(len(answer)))
            client.end_headers()
            client.wfile.write(answer)
        except OSError:
            pass  # the client did not wait for it

    def _hand_on(
        self, client: BaseHTTPRequestHandler, body: bytes, port: int
    ) -> tuple[int, bytes, str]:
        server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        skipped = ("host", "connection", "content-length")
        headers = {k: v for k, v in client.headers.items() if k.lower() not in skipped}
        server.request(client.command, client.path, body, headers)
        got = server.getresponse()
        answer = got.read()
        server.close()
        return got.status, answer, got.headers.get("Content-Type", "application/json")
