"""A server's life: it binds its port, opens the models, answers, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any

from dl4py.extras import need
from dl4py.serving.app import Application
from dl4py.serving.service import Service

TOKEN = "DL4PY_TOKEN"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    models: Mapping[str, str | os.PathLike[str]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    batch: int = 32,
    queue: int = 256,
    limit: int = 16 << 20,
    patience: float = 60.0,
    grace: float = 30.0,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Serve models over HTTP until a signal says stop.

    SIGTERM and SIGINT: no more connections, what was accepted is answered, then the
    end. SIGHUP: every model is taken anew from its file. Where the variable
    ``DL4PY_TOKEN`` is set, requests need ``Authorization: Bearer`` and its value. There
    is no TLS here: a proxy in front does that.

    Args:
        models: name → model file.
        host: address; others than this machine reach ``"0.0.0.0"``.
        port: 0 takes one that is free.
        workers: processes for each model; 0: this process runs all of them.
        batch: rows that go through a model at once; 1: each request alone.
        queue: requests to a model that may be accepted and not yet answered; beyond
            that they get 429.
        limit: bytes of a request's body.
        patience: seconds after which a worker that does not answer is replaced.
        grace: seconds to answer what was accepted, upon a signal.
        labels: name of a model → names of its classes, which ``/info`` tells.

    Raises:
        OSError: where the port is in use, or a file is not there.
        ValueError: where an argument or a file is not what it should be.
        ImportError: without the extra ``serve``.
    """
    need("uvicorn", "dl4py serve answers HTTP")
    for word, value, least in (
        ("workers", workers, 0),
        ("batch", batch, 1),
        ("queue", queue, 1),
        ("limit", limit, 1),
        ("patience", patience, 0),
        ("grace", grace, 0),
    ):
        if not value >= least:
            raise ValueError(f"serve({word}=...): must be >= {least}, got {value}")
    if not models:
        raise ValueError("serve(models=...): expected at least one model")
    for name in models:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(
                f"serve(models=...): expected names of letters, digits, '_', '.' and "
                f"'-', got {name!r}; write NAME=FILE"
            )
    labels = labels or {}
    if odd := [name for name in labels if name not in models]:
        raise ValueError(f"serve(labels=...): there is no model {odd[0]!r}")
    with (
        _bound(host, port) as sock,
        tempfile.TemporaryDirectory(prefix="dl4py-serve-") as folder,
    ):
        services = {
            name: Service(
                name,
                path,
                folder,
                workers=workers,
                batch=batch,
                queue=queue,
                patience=patience,
                labels=labels.get(name, ()),
            )
            for name, path in models.items()
        }
        app = Application(services, _token(host), limit)
        _run(_live(app, services, sock, grace))


def _run(life: Coroutine[Any, Any, None]) -> None:
    """``asyncio.run``, on uvloop where it is installed."""
    try:
        loop: asyncio.AbstractEventLoop = importlib.import_module(
            "uvloop"
        ).new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(life)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


async def _live(
    app: Application, services: Mapping[str, Service], sock: socket.socket, grace: float
) -> None:
    uvicorn = need("uvicorn", "dl4py serve answers HTTP")
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # ours, from before it is up
    me = asyncio.current_task()
    loop = asyncio.get_running_loop()
    up = False

    def stop() -> None:
        if not up and me is not None:
            me.cancel()
        server.force_exit = server.should_exit  # the second time
        server.should_exit = True

    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reloaded(services))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        try:
            loads = [service.load() for service in services.values()]
            for found in await asyncio.gather(*loads, return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found
        except asyncio.CancelledError:
            return
        up = True
        sock.listen(config.backlog)  # who reads the line below finds it open
        address = sock.getsockname()
        told = f"[{address[0]}]" if ":" in address[0] else address[0]
        names = ", ".join(services)
        print(f"serving {names} on http://{told}:{address[1]}", flush=True)
        await server.serve(sockets=[sock])
    finally:
        for service in services.values():
            await service.stop()


async def _reloaded(services: Mapping[str, Service]) -> None:
    for name, service in services.items():
        try:
            await service.load()
            told = f"{name}: version {service.version} is served"
        except (OSError, ValueError) as error:
            told = f"{name}: {error}; version {service.version} is served on"
        print(f"dl4py serve: {told}", file=sys.stderr, flush=True)


def _token(host: str) -> str:
    token = os.environ.get(TOKEN)
    if token is not None and not token.strip():
        raise ValueError(f"{TOKEN} is empty: give it a token, or unset it")
    if token is None and host not in LOOPBACK:
        print(
            f"dl4py serve: others than this machine reach {host} and need no token: "
            f"set {TOKEN}",
            file=sys.stderr,
        )
    return (token or "").strip()


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on that port, before anything that takes long."""
    if not 0 <= port <= 65535:
        raise ValueError(f"serve(port=...): must be in [0, 65535], got {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
    except socket.gaierror as error:
        raise ValueError(f"serve(host=...): {host!r} is no address: {error}") from None
    # with its protocol told, or asyncio leaves small answers waiting for 40 ms (Nagle)
    with socket.socket(family, kind, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise OSError(
                f"port {port} of {host} is in use: end what listens there, or choose "
                "another with --port",
            ) from None
        yield sock
