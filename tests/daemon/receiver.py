"""A receiver of webhooks, as honest or as hostile as a test wants it, on a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

Answer = Callable[[socket.socket, threading.Event], None]
"""Writes an answer; the event is set when the test is over."""


@dataclass(frozen=True)
class Received:
    """A request: its first line, headers by their names in lower case, and body."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, *headers: str) -> Answer:
    head = "\r\n".join([f"HTTP/1.1 {status} Said", "content-length: 0", *headers, "", ""])
    return lambda connection, over: connection.sendall(head.encode())


def hang(connection: socket.socket, over: threading.Event) -> None:
    over.wait()


def hang_up(connection: socket.socket, over: threading.Event) -> None:
    """Says nothing."""


def drip(connection: socket.socket, over: threading.Event) -> None:
    """Sends a header that never ends, a byte now and then."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not over.wait(0.02):
        connection.sendall(b"a")


def endless(connection: socket.socket, over: threading.Event) -> None:
    """Takes the message, and answers with a body that never ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not over.is_set():
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def continuing(connection: socket.socket, over: threading.Event) -> None:
    """Says again and again that it is about to answer."""
    while not over.wait(0.02):
        connection.sendall(b"HTTP/1.1 103 Early\r\nlink: </x>\r\n\r\n")


def nonsense(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"\x00\xff\x16\x03" * 100)


@dataclass
class Receiver:
    """Listens on a port of this machine.

    Attributes:
        answers: to the requests in their order; the last one to all further ones.
        received: what came.
    """

    answers: list[Answer]
    received: list[Received] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/hook?key=s3cret"

    def close(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                request = _read(connection)
                with self._lock:
                    self.received.append(request)
                    number = min(len(self.received), len(self.answers)) - 1
                    self._now += 1
                    self.most_at_once = max(self.most_at_once, self._now)
                self.answers[number](connection, self._over)
        except OSError:  # the courier had enough
            pass
        finally:
            with self._lock:
                self._now -= 1


def _read(connection: socket.socket) -> Received:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    pairs = (each.split(": ", 1) for each in lines)
    headers = {name.lower(): value for name, value in pairs}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Received(line, headers, body)
