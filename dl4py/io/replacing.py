"""A file that is replaced in one step, or stays as it was."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".dl4py-", ".tmp"


@contextmanager
def replacing(
    path: str | os.PathLike[str], what: str = "save(model, path)"
) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``path`` at the end, if nothing fails.

    It grows beside ``path`` under a name of its own and is locked as long as it does;
    what killed processes left there is removed on the way.

    - A new file has the permissions that ``open(path, "wb")`` would give it.
    - A file that is replaced hands on its permissions, and its owner and group as far
      as this process may give them; access lists and other attributes are lost.
    - A link stays one: the file that it points to is replaced. Other hard links to that
      file keep the old content.

    Args:
        path: of the file.
        what: whose argument it is, for errors to begin with.

    Raises:
        FileNotFoundError: where the path's folder does not exist.
        ValueError: where the path is a folder, a device or a pipe.
        OSError: where the folder takes no new file.
    """
    target = _target(path, what)
    folder = os.path.dirname(target)
    _sweep(folder)
    try:
        old = os.stat(target)
    except FileNotFoundError:
        old = None
    try:
        name, file = _begin(folder, 0o666 if old is None else 0o600)
    except OSError as error:  # whose name is one that nobody wrote
        raise type(error)(
            f"{what}: cannot write {target}: no new file can be made in {folder} "
            f"({(error.strerror or str(error)).lower()})"
        ) from error
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:  # Windows renames no open file
            file.close()
        if old is not None:
            _hand_on(old, name)
        os.replace(name, target)  # still locked: nobody takes it for left over
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    finally:
        file.close()


def _target(path: str | os.PathLike[str], what: str) -> str:
    """The file that ``path`` stands for, behind all links."""
    given = os.fsdecode(path)
    if os.path.basename(given) in ("", os.curdir, os.pardir):
        raise ValueError(
            f"{what}: expected a file, {given!r} names a folder; give the file's name "
            "too"
        )
    target = os.path.realpath(given)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{what}: there is no folder {folder}; make it first")
    if os.path.lexists(target) and not os.path.isfile(target):
        found = "a folder" if os.path.isdir(target) else "a device or pipe; open it"
        if os.path.islink(target):
            found = "a link to itself; remove it"
        raise ValueError(f"{what}: expected a file, {target} is {found}")
    return target


def _begin(folder: str, mode: int) -> tuple[str, IO[bytes]]:
    """A new file in ``folder`` that is locked, and its name.

    The kernel subtracts the process's umask from ``mode``. Asking for the umask means
    setting it, for all threads, and is no way to learn it.
    """
    while True:
        name = os.path.join(folder, f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(name, flags, mode), "wb")
        if _locked(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return name, file
        file.close()  # another process swept it away before it was locked


def _locked(handle: int) -> bool | None:
    """Lock a file; False if someone else has, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def _sweep(folder: str) -> None:
    """Remove what killed processes left: no living one holds its lock."""
    try:
        with os.scandir(folder) as entries:
            left = [e.path for e in entries if _scratch(e)]
    except OSError:  # a folder that can be written to, but not listed
        return
    for name in left:
        with contextlib.suppress(OSError):  # gone already, or another user's
            handle = os.open(name, os.O_RDWR)
            try:
                if _locked(handle):
                    os.unlink(name)
            finally:
                os.close(handle)


def _scratch(entry: os.DirEntry[str]) -> bool:
    named = entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)
    return named and entry.is_file(follow_symlinks=False)


def _hand_on(old: os.stat_result, name: str) -> None:
    """Give a file the owner, group and permissions of the one that it replaces."""
    if hasattr(os, "chown"):
        for owner in (old.st_uid, -1):  # only root may give files away
            with contextlib.suppress(OSError):
                os.chown(name, owner, old.st_gid)
                break
    os.chmod(name, stat.S_IMODE(old.st_mode) & 0o777)
