"""How kernels are compiled: what of torch they name, compilers, failing builds."""

from __future__ import annotations

import re

from dl4py.ops import build

SHIM = "stable.h"
PUBLIC = {"STD_TORCH_CHECK", "TORCH_BOX", "STABLE_TORCH_LIBRARY_IMPL"}


def names_of_torch(text: str) -> set[str]:
    """What a source takes of torch, comments and messages aside."""
    code = re.sub(r'//.*|"(\\.|[^"\n])*"', "", text)
    code = "\n".join(line for line in code.splitlines() if "#include" not in line)
    found = set(re.findall(r"\b\w*(?:TORCH|torch|aoti|Aten|ATen|c10)\w*\b", code))
    return found | set(re.findall(r"#include\s*<((?:torch|ATen|c10)/.*)>", text))


def test_only_the_shim_header_knows_torch() -> None:
    """All else is the same in every release; the shim is tried with each of them."""
    folder = build.source_folder()
    files = [p for p in folder.iterdir() if p.suffix in {".h", ".inl", ".cpp", ".cu"}]
    taken = {p.name: names_of_torch(p.read_text()) - PUBLIC for p in files}
    assert taken.pop(SHIM) >= {"aoti_torch_empty_strided", "AtenTensorHandle"}
    assert len(taken) > 10 and not any(taken.values()), taken


def test_what_counts_as_a_name_of_torch() -> None:
    text = '#include <torch/a.h>\n#include "b.h"  // torch\nTORCH_CHECK(1, "torch");'
    assert names_of_torch(text) == {"torch/a.h", "TORCH_CHECK"}
