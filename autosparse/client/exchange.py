"""A request and its answer, asked again where that is safe.

The token goes to the one address that the user named: redirects are not followed. What comes back is
read up to a size and for a time, whoever sends it.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx

from autosparse.client.address import Address
from autosparse.client.problems import is_away, no_daemon, of_problem, unreachable
from autosparse.closing import Closing
from autosparse.errors import MissingDependency, UsageError, got
from autosparse.version import __version__

API = "/api/v1"
JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"
_PROBLEM = "application/problem+json"
# Waits before the second and the third try.
_BACK_OFF_S = (0.2, 0.6)
_CONNECT_S = 5.0
_SILENT_S = 30.0
_WHOLE_S = 120.0
_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_NO_CONTENT = 204
_MOST_BYTES = 64 * 2**20
# An answer that never came: nothing was asked in its case, so that asking again is safe.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Exchange(Closing):
    """A connection to one daemon.

    Args:
        address: where it is.
        token: what it knows its user by.
        token_file: where that comes from, for messages.
        connect_s: how long it may take to reach it.
        sleep: waits between tries, seconds.
    """

    def __init__(
        self,
        address: Address,
        token: str,
        token_file: str,
        *,
        connect_s: float = _CONNECT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = address.url
        self._token_file = token_file
        self._sleep = sleep
        self._http = httpx.Client(
            headers={
                **({"Authorization": f"Bearer {token}"} if token else {}),
                "User-Agent": f"autosparse/{__version__}",
                "Accept-Encoding": "identity",  # a few bytes cannot become many
            },
            timeout=httpx.Timeout(_SILENT_S, connect=connect_s),
            # The system's certificates, or those that OpenSSL's SSL_CERT_FILE names; without TLS none.
            verify=ssl.create_default_context()
            if address.is_tls
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            # Proxies of the environment: for another machine, to which TLS goes through them.
            trust_env=not address.is_here,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    # ------------------------------------------------------------------------------------- asking

    def reach(self) -> None:
        """Makes sure that something answers.

        Raises:
            Unreachable: nothing does.
        """
        try:
            self._http.send(self._http.build_request("GET", f"{self.url}/healthz"), stream=True).close()
        except httpx.RequestError as error:
            self._lost(error)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Gives the JSON at a path.

        Raises:
            AutosparseError: see `ask`.
        """
        return self.ask("GET", path, query=query)[0]

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str = "",
        kind: str = JSON,
    ) -> tuple[Any, httpx.Headers]:
        """Sends a request and gives the content of its answer, and the headers.

        Args:
            method: of HTTP.
            path: below the API's.
            query: its parameters.
            body: plain values, sent as JSON.
            key: by which the daemon knows the request when it comes again.
            kind: what the answer has to be: JSON, or text, which is given as bytes.

        Raises:
            Unreachable: nothing answers, or it cannot work now.
            NoDaemon: what answers is no daemon.
            AutosparseError: the daemon refuses, with the class and words that it gives.
        """
        is_safe = method == "GET" or bool(key)
        request = self._request(method, path, query, body, key, kind)
        for wait_s in (*_BACK_OFF_S, None):
            try:
                status, headers, content = self._once(request)
            except httpx.RequestError as error:
                may_repeat = is_safe or isinstance(error, _NEVER_SENT)
                if wait_s is None or not may_repeat or _is_of_tls(error):
                    self._lost(error, may_repeat=may_repeat)
            else:
                if wait_s is None or not (is_safe and is_away(status)):
                    return self._content(status, headers, content, kind), headers
            self._sleep(wait_s * random.uniform(0.75, 1.25))
        raise AssertionError("the last try returns or raises")

    def _request(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, key: str, kind: str
    ) -> httpx.Request:
        headers = {"Accept": f"{kind}, {_PROBLEM}"}
        content = None
        if body is not None:
            content, headers["Content-Type"] = _as_json(body), JSON
        if key:
            headers["Idempotency-Key"] = key
        return self._http.build_request(
            method, f"{self.url}{API}{path}", params=query, content=content, headers=headers
        )

    def _once(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        answer = self._http.send(request, stream=True)
        try:
            return answer.status_code, answer.headers, self._read(answer)
        finally:
            answer.close()

    def _read(self, answer: httpx.Response) -> bytes:
        """Gives what an answer holds, as long as that is no more than an answer of ours can be."""
        self._check_encoding(answer)
        content = bytearray()
        until_s = time.monotonic() + _WHOLE_S
        for part in answer.iter_raw():
            content += part
            if len(content) > _MOST_BYTES:
                raise no_daemon(self.url, f"its answer is longer than {_MOST_BYTES >> 20} MiB")
            if time.monotonic() > until_s:
                raise no_daemon(self.url, f"its answer has no end after {_WHOLE_S:g} s")
        return bytes(content)

    def _check_encoding(self, answer: httpx.Response) -> None:
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise no_daemon(self.url, f"its answer is encoded as {got(encoding)}")

    def _content(self, status: int, headers: httpx.Headers, content: bytes, kind: str) -> Any:
        self._check_status(status, headers, content)
        if status == _NO_CONTENT:
            return None
        self._check_kind(status, headers, kind)
        return content if kind == TEXT else self._parsed(content)

    def _check_status(self, status: int, headers: httpx.Headers, content: bytes) -> None:
        if 300 <= status < 400:
            where = got(headers.get("Location", ""))
            raise no_daemon(self.url, f"it sends on to {where}, where the token does not go")
        if status >= 400:
            problem = self._parsed(content) if _kind_of(headers) == _PROBLEM else None
            if problem is None and not is_away(status) and status != 401:
                raise no_daemon(self.url, _answered(status, headers))
            raise of_problem(self.url, status, problem, self._token_file)

    def _check_kind(self, status: int, headers: httpx.Headers, kind: str) -> None:
        if not 200 <= status < 300 or _kind_of(headers) != kind:
            raise no_daemon(self.url, _answered(status, headers))

    def _parsed(self, content: bytes) -> Any:
        try:
            return json.loads(content, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise no_daemon(self.url, "its answer is no JSON") from None

    def _lost(self, error: httpx.RequestError, *, may_repeat: bool = True) -> NoReturn:
        """Raises what a connection's end means."""
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise no_daemon(self.url, f"the address cannot be used: {error}") from None
        if _is_of_tls(error):
            raise MissingDependency(
                f"the daemon at {self.url} must show a certificate that is trusted here, but: {error}; "
                "name the file of its certificate in SSL_CERT_FILE, or write http if it speaks no TLS"
            ) from None
        why = _why(error)
        if not may_repeat:
            why = f"{why} (it may have done what was asked all the same: look before you ask again)"
        raise unreachable(self.url, why) from None

    # ------------------------------------------------------------------------------------ streaming

    @contextmanager
    def stream(self, path: str, *, last_id: str = "", silent_s: float) -> Iterator[Iterator[bytes]]:
        """Opens a stream of events, once, and gives its bytes as they come.

        Args:
            path: below the API's.
            last_id: of the last event that was taken; empty for all from the beginning.
            silent_s: how long nothing may come before the connection counts as lost.

        Raises:
            Unreachable: nothing answers, or the connection is lost.
            NoDaemon: what answers is no daemon.
            AutosparseError: the daemon refuses.
        """
        headers = {"Accept": EVENTS, "Cache-Control": "no-store"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(_SILENT_S, connect=_CONNECT_S, read=silent_s)
        request = self._http.build_request(
            "GET", f"{self.url}{API}{path}", headers=headers, timeout=timeout
        )
        try:
            answer = self._http.send(request, stream=True)
            try:
                if answer.status_code != 200:
                    self._check_status(answer.status_code, answer.headers, self._read(answer))
                self._check_encoding(answer)
                self._check_kind(answer.status_code, answer.headers, EVENTS)
                yield answer.iter_raw()
            finally:
                answer.close()
        except httpx.RequestError as error:
            self._lost(error)


def _kind_of(headers: httpx.Headers) -> str:
    return str(headers.get("Content-Type", "")).partition(";")[0].strip().lower()


def _answered(status: int, headers: httpx.Headers) -> str:
    return f"what answers gives status {status} and content of type {got(_kind_of(headers) or 'none')}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _as_json(values: Any) -> bytes:
    try:
        return json.dumps(values, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise UsageError(
            "what a daemon is asked for must be text, numbers, switches, and lists of them, but got "
            f"{got(values)}; put quotes around a date or what is not a number"
        ) from None


def _is_of_tls(error: httpx.RequestError) -> bool:
    """Tells whether two sides could not agree on TLS when they met."""
    cause: BaseException | None = error if isinstance(error, httpx.ConnectError) else None
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _why(error: httpx.RequestError) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "it takes too long to reach it"
    if isinstance(error, httpx.TimeoutException):
        return "it is silent for too long"
    return _ERRNO.sub("", str(error)) or type(error).__name__
