"""HTTP around the models, as an ASGI application."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from dl4py.serving import metrics
from dl4py.serving.bodies import JSON, kind_of
from dl4py.serving.service import Service
from dl4py.serving.spec import Arrays, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, str, bytes]

LARGE = 1 << 17  # bytes of a body that is read and written beside the event loop
DISCARDED = 8  # times the limit: what is read of a body that is too large
READING = 30.0  # seconds in which a body must have come
METHODS = {
    "predict": "POST",
    "reload": "POST",
    "info": "GET",
    "health": "GET",
    "metrics": "GET",
}


class Application:
    """``/predict``, ``/info``, ``/health``, ``/metrics`` and ``/reload``.

    Args:
        services: the models by name.
        token: which all but ``/health`` want to see; empty: nobody needs one.
        limit: bytes that a body may have.
        room: bytes that all bodies at hand may have together.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        token: str = "",
        limit: int = 16 << 20,
        room: int = 256 << 20,
    ) -> None:
        self.services, self.token = services, token.encode()
        self.limit, self.room = limit, max(room, limit)
        self.held = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']}: only HTTP is answered")
        headers = {k.decode("latin-1"): v for k, v in scope["headers"]}
        start = time.perf_counter()
        word, _, name = scope["path"].strip("/").partition("/")
        close = False
        try:
            self._check(word, scope["method"], headers)
            status, kind, body = await self._answer(word, name, headers, receive)
        except Refused as refused:
            status, kind = refused.status, JSON
            body = json.dumps({"error": refused.message}).encode()
            close = status in (408, 413)
        except ConnectionError:
            return  # whoever asked has gone
        if word == "predict" and (service := self._named(name)):
            service.counts.answered(status, time.perf_counter() - start)
        more = [(b"content-type", kind.encode())]
        more.append((b"content-length", str(len(body)).encode()))
        if status == 401:
            more.append((b"www-authenticate", b"Bearer"))
        if status in (429, 503):
            more.append((b"retry-after", b"1"))
        if status == 405:
            more.append((b"allow", METHODS[word].encode()))
        if close:
            more.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": more})
        await send({"type": "http.response.body", "body": body})

    def _check(self, word: str, method: str, headers: Mapping[str, bytes]) -> None:
        """Refuse strangers first, then unknown paths and methods."""
        if self.token and word != "health":
            scheme, _, given = headers.get("authorization", b"").partition(b" ")
            # in the same time whatever is wrong with it
            if not hmac.compare_digest(given.strip(), self.token) or (
                scheme.lower() != b"bearer"
            ):
                raise Refused(401, "authorization: expected 'Bearer' and the token")
        if word not in METHODS:
            known = ", ".join(f"/{known}" for known in METHODS)
            raise Refused(404, f"/{word}: expected {known}")
        if method != METHODS[word]:
            raise Refused(405, f"/{word}: expected {METHODS[word]}, got {method}")

    async def _answer(
        self, word: str, name: str, headers: Mapping[str, bytes], receive: Receive
    ) -> Answer:
        if word == "metrics":
            found = {n: (s.counts, s.gauges()) for n, s in self.services.items()}
            return 200, "text/plain; version=0.0.4", metrics.text(found).encode()
        if word == "health":
            alive = {n: s.gauges()["workers"] for n, s in self.services.items()}
            well = all(alive.values())
            data = {
                "status": "ok" if well else "a model has no worker",
                "workers": alive,
            }
            return 200 if well else 503, JSON, json.dumps(data).encode()
        if word == "info":
            known = {n: s.info() for n, s in self.services.items()}
            return 200, JSON, json.dumps(known).encode()
        service = self._service(word, name)
        if word == "reload":
            return await self._reload(service)
        return await self._predict(service, headers, receive)

    def _named(self, name: str) -> Service | None:
        if not name and len(self.services) == 1:
            return next(iter(self.services.values()))
        return self.services.get(name)

    def _service(self, word: str, name: str) -> Service:
        service = self._named(name)
        if service is None:
            known = ", ".join(f"/{word}/{known}" for known in self.services)
            raise Refused(404, f"/{word}/{name}: expected {known}")
        return service

    async def _reload(self, service: Service) -> Answer:
        try:
            await service.load()
        except (OSError, ValueError) as error:
            raise Refused(
                422, f"{error}; version {service.version} is served on"
            ) from None
        return 200, JSON, json.dumps({"version": service.version}).encode()

    async def _predict(
        self, service: Service, headers: Mapping[str, bytes], receive: Receive
    ) -> Answer:
        service.check_room()  # before anything is read
        kind = kind_of(headers.get("content-type", b"").decode("latin-1"))
        wanted = headers.get("accept", b"").decode("latin-1")
        into = kind if wanted in ("", "*/*") else kind_of(wanted.partition(",")[0])
        line = service.line
        names = list(line.spec.inputs) if line else []
        held = [0]
        try:
            body = await self._body(headers, receive, held)
            large = len(body) > LARGE
            given: Arrays = await _call(large, kind.read, body, names, self.limit)
            del body
            outputs = await service.predict(given)
            large = sum(a.nbytes for a in outputs.values()) > LARGE
            return 200, into.name, await _call(large, into.write, outputs)
        finally:
            self.held -= held[0]

    async def _body(
        self, headers: Mapping[str, bytes], receive: Receive, held: list[int]
    ) -> bytes:
        """The body; what it takes is added to ``held``."""
        told = headers.get("content-length", b"0")
        size = int(told) if told.isdigit() else 0
        if size > self.limit and b"100-continue" in headers.get("expect", b""):
            raise Refused(413, self._too_large(f"{size}"))
        parts: list[bytes] = []
        total, full = 0, False
        end = time.monotonic() + READING
        while True:
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except asyncio.TimeoutError:
                raise Refused(
                    408, f"the body did not come within {READING:g} s"
                ) from None
            if message["type"] == "http.disconnect":
                raise ConnectionError
            part = message.get("body", b"")
            total += len(part)
            full = full or self.held + len(part) > self.room
            if max(total, size) <= self.limit and not full:
                parts.append(part)
                self.held += len(part)
                held[0] += len(part)
            elif parts:  # it is read to its end, so that the answer can be read
                parts.clear()
                self.held -= held[0]
                held[0] = 0
            if total > DISCARDED * self.limit or not message.get("more_body"):
                break
        if max(total, size) > self.limit:
            raise Refused(413, self._too_large(f"{max(total, size)}"))
        if full:
            raise Refused(429, "the bodies at hand fill the memory for them; ask again")
        return b"".join(parts)

    def _too_large(self, size: str) -> str:
        return (
            f"the body: at most {self.limit} bytes (--limit), got {size}; send fewer "
            "rows at once"
        )


async def _call(aside: bool, function: Any, *given: Any) -> Any:
    """``function(*given)``, aside from the event loop where it takes long."""
    return await asyncio.to_thread(function, *given) if aside else function(*given)
