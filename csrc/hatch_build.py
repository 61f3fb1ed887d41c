"""Puts compiled CPU kernels into the wheel: ``DL4PY_BUILD_OPS=1 pip wheel . \
--no-build-isolation``. Without the variable the wheel is pure Python."""

from __future__ import annotations

import os
import pathlib
import runpy
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PrebuiltKernels(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("DL4PY_BUILD_OPS") != "1" or version == "editable":
            return
        # as a file: importing dl4py would need all it depends on
        builder = runpy.run_path(os.path.join(self.root, "dl4py", "ops", "build.py"))
        self.library = pathlib.Path(self.directory, builder["library_name"]("cpu"))
        self.library.with_suffix(".log").unlink(missing_ok=True)
        builder["build"]("cpu", self.library, anew=True)
        build_data["force_include"][self.library] = f"dl4py/_lib/{self.library.name}"
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data.update(pure_python=False, tag=f"py3-none-{platform}")

    def finalize(self, version: str, build_data: dict[str, Any], path: str) -> None:
        if hasattr(self, "library"):
            self.library.unlink()
            self.library.with_name("lock").unlink()
