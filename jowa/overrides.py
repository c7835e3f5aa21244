"""How a configuration's values are written on the command line: in Hydra's grammar, and in the shell's."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][\w./+:-]*", re.ASCII)
_ODD = re.compile(r"([\\()\[\]{}:=, \t])")


def assignment(key: str, value: Any) -> str:
    """key=value, quoted where the shell needs it; `value` is made of JSON's kinds."""
    return shlex.quote(f"{key}={_written(value)}")


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(_ODD.sub(r"\\\1", str(key)) + f": {_written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """Bare where nothing else could be meant by it."""
    if _PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false") and not _is_number(value):
        return value
    # OmegaConf's references to other keys, then Hydra's quotes: of backslashes only those before them are special.
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), literal) + '"'


def _is_number(value: str) -> bool:
    with contextlib.suppress(ValueError):
        float(value)
        return True
    return False
