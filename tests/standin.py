"""A server that answers as it is told to, in a daemon's place: also what no daemon would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

API = "/api/v1"
TOKEN = "a-token-of-some-length"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer. `parts` are sent one by one, and the connection is cut if it is to be `cut`."""

    status: int = 200
    body: Any = None
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Callable[[], Iterator[bytes]] | None = None
    cut: bool = False


LOST = Reply(cut=True)
"""The request came, and the connection ends without an answer."""


def problem(status: int, detail: str, exit_code: int | None = None, **headers: str) -> Reply:
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail}
    return Reply(
        status,
        body if exit_code is None else {**body, "exit_code": exit_code},
        "application/problem+json",
        headers,
    )


def events(*told: tuple[str, Any] | bytes, cut: bool = False) -> Reply:
    """Gives a stream of events, numbered from 1; bytes are sent as they are."""

    def parts() -> Iterator[bytes]:
        for number, each in enumerate(told, 1):
            if isinstance(each, bytes):
                yield each
            else:
                kind, data = each
                text = data if kind == "log" else json.dumps(data)
                yield f"id: {number}\nevent: {kind}\ndata: {text}\n\n".encode()

    return Reply(kind="text/event-stream; charset=utf-8", parts=parts, cut=cut)


def job(state: str = "running", **more: Any) -> dict[str, Any]:
    """Gives a job as the API words it."""
    return {
        "id": 7,
        "verb": "tune",
        "settings": {"model": "resnet18"},
        "state": state,
        "priority": 0,
        "label": "",
        "time_limit_s": None,
        "retries": 3,
        "hardware_id": "",
        "submitted_at": "2026-01-31T03:00:00Z",
        "changed_at": "2026-01-31T03:00:01Z",
        "ready_at": None,
        "attempt": 1 if state == "running" else 0,
        "failures": 0,
        "owner": "",
        "ran_s": 0.0,
        "cancelling": False,
        "exit_code": None,
        "message": "",
        "run": "",
        "schedule_id": None,
        "due_at": None,
        "progress": None,
        **more,
    }


def schedule(**more: Any) -> dict[str, Any]:
    """Gives a schedule as the API words it."""
    return {
        "id": 3,
        "name": "nightly",
        "cron": "0 3 * * sun",
        "description": "At 03:00 on Sunday",
        "timezone": "Europe/Berlin",
        "enabled": True,
        "catch_up": "once",
        "jitter_s": 0.0,
        "verb": "tune",
        "settings": {"model": "resnet18"},
        "priority": 0,
        "label": "",
        "time_limit_s": None,
        "retries": 3,
        "hardware_id": "",
        "next_at": "2026-02-01T02:00:00Z",
        "created_at": "2026-01-31T03:00:00Z",
        **more,
    }


class StandIn:
    """The server; as a context manager it runs meanwhile. `stop` and `start` keep its port."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._replies: dict[tuple[str, str], list[Reply | Callable[[], Reply]]] = {}
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def on(self, method: str, path: str, *replies: Reply | Callable[[], Reply]) -> None:
        """Says what is answered, one reply after the other and the last one from then on."""
        self._replies[method, API + path if path.startswith("/") else path] = list(replies)

    def gives(self, path: str, body: Any) -> None:
        """Says what JSON lies at a path."""
        self.on("GET", path, Reply(body=body))

    def asked(self, method: str, path: str) -> list[Seen]:
        return [each for each in self.seen if (each.method, each.path) == (method, API + path)]

    def start(self) -> None:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                stand_in._answer(self)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        content = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.seen.append(
            Seen(
                method=handler.command,
                path=parts.path,
                query=parse_qs(parts.query),
                headers=dict(handler.headers.items()),
                body=json.loads(content) if content else None,
            )
        )
        replies = self._replies.get((handler.command, parts.path), [problem(404, "no such thing", 2)])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        _send(handler, reply if isinstance(reply, Reply) else reply())


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.close_connection = True
    if reply.cut and reply.parts is None:
        return
    content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    handler.send_response(reply.status)
    handler.send_header("Content-Type", reply.kind)
    handler.send_header("Connection", "close")
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    chunked = reply.parts is not None
    handler.send_header("Transfer-Encoding", "chunked") if chunked else handler.send_header(
        "Content-Length", "0" if reply.status == 204 else str(len(content))
    )
    handler.end_headers()
    if reply.parts is None:
        handler.wfile.write(b"" if reply.status == 204 else content)
        return
    for part in reply.parts():
        handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    if not reply.cut:
        handler.wfile.write(b"0\r\n\r\n")
