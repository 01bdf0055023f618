"""A lean HTTP/1.1 client: many long answers at once from few hosts, over connections that stay open.

Parsing is httptools' (llhttp, as in Node); here are the connections, TLS, proxies from the environment, and
answers that can be looked at while they grow. `benchmarks/sampling/` measures it.
"""

from __future__ import annotations

import asyncio
import base64
import resource
import ssl
import time
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import SplitResult, unquote, urlsplit

import httptools

from pipeline.progress import say

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 4.0
"""A connection idle for longer is not used again: uvicorn, under vLLM, closes it after five, perhaps just then."""
RESOLVED_SECONDS = 60.0
"""How long a host's address is remembered."""
SPARE_FILES = 256
"""Descriptors left for all that is no connection."""


class Unreachable(Exception):
    """No connection could be made: nothing was asked."""


class Broken(Exception):
    """The connection ended, or what came over it is no HTTP, before the answer was whole."""


@dataclass(eq=False)
class Answer:
    """An answer, whole or under way; times are those of `time.monotonic`."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """By lower-case names; the last of several."""
    body: bytearray = field(default_factory=bytearray)
    began: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    """When the last byte came; of a stream, the last event."""
    streamed: bool = False
    """Whether it is a stream of events, in which comments ("keep-alive") are no sign that anything moves."""
    begun: bool = False
    """Whether anything came but comments."""
    _done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def flows(self) -> bool:
        """Whether anything came of what was asked for; a refusal's words are nothing."""
        return self.status == 200 and bool(self.body) and self.begun

    def cut(self, why: Exception | None = None) -> None:
        """End the waiting for the rest: the waiter gets `why` raised, or with None the answer as far as it came."""
        if not self._done.done():
            if why is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(why)


class Connections:
    """Open connections by site, each with one request at a time. Close it in the end."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str, int], dict[_Connection, None]] = {}
        self._open: set[_Connection] = set()
        self._addresses: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._proxies: dict[tuple[str, str, int], SplitResult | None] = {}
        self._turn = 0

    async def post(self, url: SplitResult, headers: dict[str, str], body: bytes, answer: Answer) -> None:
        """Post a body and fill the answer; return when it is whole, or when it was cut.

        Raises:
            Unreachable: no connection. Broken: it ended too soon. And whatever `answer.cut` was given.
        """
        site = (url.scheme, url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
        sent = _request(url, self._proxy_for(site), headers, body)
        idle = self._idle.setdefault(site, {})
        connection = None
        while idle and connection is None:
            connection, _ = idle.popitem()
            if time.monotonic() - connection.used > IDLE_SECONDS:
                connection.drop()
                connection = None
        connection = connection or await self._connect(site)
        connection.send(sent, answer)
        try:
            await answer._done
        finally:
            if connection.free:
                connection.used = time.monotonic()
                idle[connection] = None
            else:
                connection.drop()

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.drop()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _proxy_for(self, site: tuple[str, str, int]) -> SplitResult | None:
        if site not in self._proxies:
            found = urllib.request.getproxies().get(site[0])
            if found and not urllib.request.proxy_bypass(site[1]):
                self._proxies[site] = urlsplit(found if "://" in found else f"http://{found}")
            else:
                self._proxies[site] = None
        return self._proxies[site]

    async def _connect(self, site: tuple[str, str, int]) -> _Connection:
        scheme, host, port = site
        loop = asyncio.get_running_loop()
        proxy = self._proxy_for(site)
        towards = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                straight = scheme == "https" and proxy is None
                addresses = await self._addresses_of(*towards)
                for address in addresses:
                    try:
                        transport, connection = await loop.create_connection(
                            lambda: _Connection(self, site),
                            address,
                            towards[1],
                            ssl=self._tls if straight else None,
                            server_hostname=host if straight else None,
                        )
                        break
                    except OSError:
                        # A name may stand for addresses that nobody listens at: localhost, for ::1.
                        if address == addresses[-1]:
                            raise
                if scheme == "https" and proxy is not None:
                    await self._tunnel(connection, host, port, proxy)
                    secured = await loop.start_tls(transport, connection, self._tls, server_hostname=host)
                    assert secured is not None
                    connection.transport = secured
                return connection
        except TimeoutError:
            raise Unreachable(f"no connection to {towards[0]}:{towards[1]} within {CONNECT_SECONDS:.0f} s") from None
        except (OSError, ssl.SSLError) as error:
            raise Unreachable(f"cannot connect to {towards[0]}:{towards[1]} ({_said(error)})") from error

    async def _tunnel(self, connection: _Connection, host: str, port: int, proxy: SplitResult) -> None:
        answer = Answer()
        head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{_proxy_key(proxy)}\r\n"
        connection.send(head.encode(), answer, tunnel=True)
        try:
            await answer._done
        except Broken as error:
            raise OSError(f"the proxy: {error}") from error
        if answer.status != 200:
            connection.drop()
            raise OSError(f"the proxy refuses, HTTP {answer.status}")

    async def _addresses_of(self, host: str, port: int) -> list[str]:
        """Return the addresses of the host, each time with another first."""
        until, found = self._addresses.get((host, port), (0.0, []))
        if time.monotonic() > until:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
            self._addresses[host, port] = (time.monotonic() + RESOLVED_SECONDS, found)
        self._turn += 1
        first = self._turn % len(found)
        return [*found[first:], *found[:first]]


class _Connection(asyncio.Protocol):
    """One connection; also what httptools' parser calls."""

    def __init__(self, owner: Connections, site: tuple[str, str, int]) -> None:
        self.owner = owner
        self.site = site
        self.tunnel = False
        self.transport: asyncio.Transport | None = None
        self.answer: Answer | None = None
        self.free = False
        self.used = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self.owner._open.add(self)

    def send(self, data: bytes, answer: Answer, tunnel: bool = False) -> None:
        self.answer, self.free, self.tunnel = answer, False, tunnel
        self.parser = httptools.HttpResponseParser(self)
        if self.transport is None or self.transport.is_closing():
            answer.cut(Broken("the connection was closed"))
        else:
            self.transport.write(data)

    def drop(self) -> None:
        self.answer = None
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self.drop()  # said without being asked
            return
        if not answer.streamed or b"data:" in data:
            answer.moved, answer.begun = time.monotonic(), True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end()
        except httptools.HttpParserError as error:
            answer.cut(Broken(f"no HTTP came ({error})"))
            self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        self.owner._open.discard(self)
        self.free = False
        self.owner._idle.get(self.site, {}).pop(self, None)
        if (answer := self.answer) is not None:
            if answer.status and not {"content-length", "transfer-encoding"} & answer.headers.keys():
                answer.cut()  # such a body ends with the connection
            else:
                why = f"the connection was lost ({_said(error)})" if error else "the connection was closed"
                answer.cut(Broken(why))

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self.answer is not None
        self.answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self.answer is not None
        self.answer.status = self.parser.get_status_code()
        if self.tunnel:
            self._end()

    def on_body(self, data: bytes) -> None:
        if self.answer is not None:
            self.answer.body += data

    def on_message_complete(self) -> None:
        if self.answer is None:
            return
        if self.answer.status < 200:  # "100 Continue" and its kin
            self.answer.headers.clear()
            return
        self.free = self.parser.should_keep_alive()
        self._end()

    def _end(self) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.cut()


def _request(url: SplitResult, proxy: SplitResult | None, headers: dict[str, str], body: bytes) -> bytes:
    target = url.path or "/"
    if url.query:
        target += f"?{url.query}"
    own = ""
    if proxy is not None and url.scheme == "http":
        target, own = f"http://{url.netloc}{target}", _proxy_key(proxy)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    method = "POST" if body else "GET"
    host = url.netloc.rpartition("@")[2]
    head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}{own}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _proxy_key(proxy: SplitResult) -> str:
    if not proxy.username:
        return ""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"


def _said(error: BaseException | None) -> str:
    return str(error).strip() or type(error).__name__


def within_files(concurrency: int) -> int:
    """Return how many connections can be open at once, the system's soft limit raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            say(f"at most {soft - SPARE_FILES} requests in flight: the system allows {hard} open files (ulimit -n)")
    return concurrency if soft == resource.RLIM_INFINITY else max(1, min(concurrency, soft - SPARE_FILES))
