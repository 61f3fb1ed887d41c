"""Damaged model zips: ``python -m tests.fuzz [COUNT] [SEED]`` (default 100,000 files).

Each file is one of DL4J's own zips, of every era, with bytes, entries, JSON values or
array headers changed; half of them are of old eras, or graphs. :func:`dl4py.restore`
must return a network or raise DL4JFormatError that names a place; it must not hang, and
not take more memory than the configuration implies.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import struct
import sys
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import dl4py
from tests import catalogue, graphs, resources

ROOT = catalogue.HERE.parent
BUDGET = 16 << 20  # bytes above what the configuration implies
SECONDS = 5
Entries = dict[str, bytes]
Mutation = Callable[[random.Random, Entries], bytes]
NUMBERS = (-1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63), 0.5, 1e308)
VALUES = (*NUMBERS, None, True, "", "x", "NaN", "-Infinity", [], {}, [[[]]], "9" * 50)


def packed(entries: Entries, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def _noise(r: random.Random, data: bytes, most: int = 8) -> bytes:
    """Bytes changed, cut out, put in or repeated at random places."""
    out = bytearray(data)
    for _ in range(r.randint(1, most)):
        at = r.randrange(len(out) + 1)
        kind = r.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << r.randrange(8)
        elif kind == 1:
            out[at : at + 4] = r.choice((b"\xff", b"\x00", b"\x7f")) * 4
        elif kind == 2:
            del out[at : at + r.randint(1, 64)]
        elif kind == 3:
            out[at:at] = r.randbytes(r.randint(1, 16))
        else:
            out[at:at] = out[at : at + r.randint(1, 256)]
    return bytes(out)


def archive_bytes(r: random.Random, entries: Entries) -> bytes:
    """The zip's own structure: directory, sizes, checksums, methods."""
    method = r.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    data = bytearray(packed(entries, method))
    if r.random() < 0.5:  # lies where sizes, offsets and methods stand
        signature = r.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
        starts = [i for i in range(len(data) - 46) if data[i : i + 4] == signature] or [
            0
        ]
        at = r.choice(starts) + r.randrange(4, 46)
        data[at : at + 4] = struct.pack("<I", r.choice((0, 1, 99, 2**31, 2**32 - 1)))
        return bytes(data)
    return _noise(r, bytes(data))


def truncated(r: random.Random, entries: Entries) -> bytes:
    """A file that ends early, or has strange ends."""
    data = packed(entries)
    if r.random() < 0.7:
        return data[: r.randrange(len(data))]
    return r.randbytes(r.randint(0, 200)) + data + r.randbytes(r.randint(0, 200))


def entry_bytes(r: random.Random, entries: Entries) -> bytes:
    """Noise inside an entry, checksums made to fit."""
    name = r.choice(list(entries))
    return packed({**entries, name: _noise(r, entries[name])})


def array_header(r: random.Random, entries: Entries) -> bytes:
    """Lengths, shapes and strides that lie, in the first bytes of an array."""
    names = [n for n in entries if n.endswith(".bin")]
    if not names:
        return entry_bytes(r, entries)
    name = r.choice(names)
    data = bytearray(entries[name])
    for _ in range(r.randint(1, 3)):
        at = r.randrange(min(len(data), 140))
        value = r.choice([n for n in NUMBERS if isinstance(n, int)])
        data[at : at + 8] = struct.pack(">q", max(-(2**63), min(value, 2**63 - 1)))
    return packed({**entries, name: bytes(data)})


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def json_values(r: random.Random, entries: Entries) -> bytes:
    """Well-formed JSON with values of other types and sizes, keys lost or moved."""
    content = json.loads(entries["configuration.json"])
    for _ in range(r.randint(1, 3)):
        places = list(_places(content))
        place, key = r.choice(places)
        kind = r.randrange(5)
        if kind == 0:
            del place[key]
        elif kind == 1:
            other, where = r.choice(places)
            place[key] = json.loads(json.dumps(other[where]))
        elif kind == 2 and isinstance(place[key], (int, float)):
            place[key] = r.choice((-1, 2, 10, 1000)) * place[key]
        elif kind == 3 and isinstance(place, list):
            place.extend([place[key]] * r.choice((1, 3, 300)))
        else:
            place[key] = r.choice(VALUES)
        if not isinstance(content, dict) or not list(_places(content)):
            break
    return packed({**entries, "configuration.json": json.dumps(content).encode()})


def json_text(r: random.Random, entries: Entries) -> bytes:
    """Text that is deep, long, or no JSON."""
    text = entries["configuration.json"]
    kind = r.randrange(4)
    if kind == 0:
        depth = r.choice((100, 5_000, 200_000))
        text = text.replace(b"{", b'{"x": ' + b"[" * depth + b",", 1)
    elif kind == 1:
        depth = r.choice((50, 70, 3_000))
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        text = text.replace(b"{", b'{"zzz": ' + nested + b",", 1)
    elif kind == 2:
        text = text.replace(b"1", b"1" * r.choice((30, 5_000, 100_000)), 3)
    else:
        text = _noise(r, text, 3)
    return packed({**entries, "configuration.json": text})


def entries_moved(r: random.Random, entries: Entries) -> bytes:
    """Entries lost, swapped, renamed, or far larger than their compressed bytes."""
    out = dict(entries)
    name = r.choice(list(out))
    kind = r.randrange(4)
    if kind == 0:
        del out[name]
    elif kind == 1:
        other = r.choice(list(out))
        out[name], out[other] = out[other], out[name]
    elif kind == 2:
        out["../" * r.randint(1, 4) + name] = out.pop(name)
    else:
        out[name] = out[name] + b"\0" * r.choice((1, 1 << 16, 1 << 22))
    return packed(out)


MUTATIONS: tuple[Mutation, ...] = (
    archive_bytes,
    truncated,
    entry_bytes,
    array_header,
    json_values,
    json_text,
    entries_moved,
)


def originals() -> list[Entries]:
    """The real zips of M2.1, small ones and with state, as entries."""
    from tests.models.test_catalogue import MISSING, configuration

    found = []
    for name in catalogue.copied():
        case = catalogue.load(name)
        if configuration(case) is MISSING:
            continue
        file = case.file("trained.zip") or case.file("model.zip")
        assert file is not None
        found.append(_entries(file))
    return found


def others() -> list[Entries]:
    """Files of old eras, and graphs, as entries."""
    found = [
        _entries(resources.data(name))
        for name in resources.copied()
        if resources.data(name).read(2) == b"PK"
    ]
    for name in graphs.CASES:
        net, file = graphs.configuration(name).module(dl4j_exact=True), io.BytesIO()
        dl4py.save(net, file)
        found.append(_entries(file))
    return found


def _entries(file: io.BytesIO) -> Entries:
    with zipfile.ZipFile(file) as archive:
        return {n: archive.read(n) for n in archive.namelist()}


class Fault(Exception):
    """What must not happen."""


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextmanager
def limits(extra: int) -> Iterator[None]:
    """At most ``extra`` more bytes of address space, and some seconds of time."""

    def late(*_: object) -> None:
        raise Fault(f"more than {SECONDS} seconds")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + extra, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def check(data: bytes) -> str:
    """``"restored"`` or ``"refused"``; raises :class:`Fault`."""
    # present in full: parameters and state, each read once into its own tensors
    implied = 2 * len(data)
    try:
        with limits(BUDGET + implied):
            net = dl4py.restore(io.BytesIO(data))
    except dl4py.DL4JFormatError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError) or "CPUAllocator" in str(cause):
                raise Fault(f"took too much memory: {error}") from error
            cause = cause.__cause__
        if not str(error).startswith("model:") or len(str(error)) > 2000:
            raise Fault(f"names no place, or too much: {error}") from error
        return "refused"
    except Fault:
        raise
    except BaseException as error:
        raise Fault(f"{type(error).__name__}: {error}") from error
    if not isinstance(net.params(), torch.Tensor):
        raise Fault("no network came back")
    return "restored"


def run(count: int, seed: int = 0) -> Counter[tuple[str, str]]:
    """Try ``count`` files; (mutation, outcome) → how many."""
    warnings.simplefilter("ignore")  # of Java objects, and of kernels of series
    resources.register_custom()
    kinds, outcomes = (originals(), others()), Counter[tuple[str, str]]()
    for entries in (*kinds[0], *kinds[1]):  # what is imported at first use is no damage
        dl4py.restore(io.BytesIO(packed(entries)))
    for i in range(count):
        r = random.Random(f"{seed}/{i}")
        mutation = MUTATIONS[i % len(MUTATIONS)]
        data = mutation(r, r.choice(kinds[i // len(MUTATIONS) % 2]))
        try:
            outcomes[mutation.__name__, check(data)] += 1
        except Fault as fault:
            place = f"seed {seed}, file {i}, {mutation.__name__}"
            raise AssertionError(f"{place}: {str(fault)[:600]}") from None
    return outcomes


def main() -> None:
    """The command."""
    count, seed = (*map(int, sys.argv[1:]), *(100_000, 0)[len(sys.argv) - 1 :])
    start = time.monotonic()
    outcomes = run(count, seed)
    for mutation in MUTATIONS:
        name = mutation.__name__
        refused, restored = outcomes[name, "refused"], outcomes[name, "restored"]
        print(f"{name:15} {refused:6} refused  {restored:6} restored")
    print(f"{count} files in {time.monotonic() - start:.0f} s, no fault")


if __name__ == "__main__":
    main()
