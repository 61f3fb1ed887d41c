"""A server in a process of its own, and a client with open connections."""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).parent.parent.parent


@contextlib.contextmanager
def running(*arguments, token=None, module=None):
    """``dl4py serve`` on a free port, or another server: (process, port)."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env.pop("DL4PY_TOKEN", None)
    if token is not None:
        env["DL4PY_TOKEN"] = token
    served = ["dl4py.commands.cli", "serve", "--port", "0"]
    command = [sys.executable, "-m", *([module] if module else served)]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        env=env,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        line = process.stdout.readline()
        if "serving" not in line:
            raise RuntimeError(process.communicate(timeout=20)[1])
        yield process, int(line.rpartition(":")[2])
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.communicate()


def ask(port, path, body=None, token=None, **headers):
    """(status, content) of one request on a connection of its own."""
    given = {k.replace("_", "-"): v for k, v in headers.items()}
    if token:
        given["authorization"] = f"Bearer {token}"
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=body, headers=given
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Connection:
    """One connection that is kept; answers come in the order of requests."""

    def __init__(self, port, token=None):
        self.port, self.reader = port, None
        self.more = f"Authorization: Bearer {token}\r\n" if token else ""

    async def post(self, path, body):
        """(status, content)"""
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port
            )
        kind = "Content-Type: application/json\r\n"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{kind}{self.more}"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        content = await self.reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1]), content

    def close(self):
        if self.reader is not None:
            self.writer.close()
            self.reader = None


async def closed(port, bodies, clients, path="/predict", token=None):
    """Clients that each ask again when they are answered.

    Returns:
        answers in the order of ``bodies``, latencies, and seconds in all.
    """
    found, seconds = [None] * len(bodies), []
    left = iter(range(len(bodies)))

    async def client():
        line = Connection(port, token)
        for i in left:
            start = time.perf_counter()
            found[i] = await line.post(path, bodies[i])
            seconds.append(time.perf_counter() - start)
        line.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return found, sorted(seconds), time.perf_counter() - start


def body(*rows):
    """The body that asks about these rows."""
    return json.dumps({"inputs": [list(map(float, row)) for row in rows]}).encode()
