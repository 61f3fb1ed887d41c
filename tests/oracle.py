"""DL4J itself, as a process that answers commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.golden import SHARED

PROGRAM = SHARED / "oracle" / "oracle"


def at_hand() -> bool:
    """Whether DL4J and a Java to run it are here."""
    return PROGRAM.exists() and shutil.which("java") is not None


class Oracle:
    """One Java process for many commands; ``with Oracle() as oracle``."""

    def __enter__(self) -> Oracle:
        command = [str(PROGRAM), "shell"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __call__(self, *words: str | Path | int) -> None:
        """Run one command; raises with DL4J's own message where it fails."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write("\t".join(map(str, words)) + "\n")
        stdin.flush()
        for line in stdout:  # ND4J's own words come between
            if line.startswith("error:"):
                raise RuntimeError(f"{words[0]}: {line.strip()}")
            if line == "ok\n":
                return
        raise RuntimeError(f"{words[0]}: the process ended")
