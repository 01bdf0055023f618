"""The names that TRL's SFTConfig takes, read from its source so that reading a recipe never imports torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

SOURCES = (
    ("trl", "trainer/sft_config.py", "SFTConfig"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)


@cache
def sft_options() -> tuple[str, ...]:
    """Return the sorted names of SFTConfig's settings; () where TRL is not installed or laid out otherwise."""
    found: set[str] = set()
    for package, file, kind in SOURCES:
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / file if spec and spec.origin else None
        if path is None or not path.exists():
            return ()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == kind:
                found |= {
                    line.target.id
                    for line in node.body
                    if isinstance(line, ast.AnnAssign)
                    and isinstance(line.target, ast.Name)
                    and not line.target.id.startswith("_")
                    and "ClassVar" not in ast.unparse(line.annotation)
                    and not (line.value is not None and "init=False" in ast.unparse(line.value))
                }
    return tuple(sorted(found))
