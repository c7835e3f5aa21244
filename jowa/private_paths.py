"""Paths of this computer in what is shown to others: shortened to what says something to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

_BEGIN = r"(?:(?<![\w/.~<…-])|(?<=file://)|(?<=file://localhost)|(?<=(?<![\w-])-[A-Za-z]))"
"""Where a path may begin: not within a word, but in a file's address and behind an option's letter, as in -I/opt."""
_PATH = re.compile(_BEGIN + r"""(?:~[\w-]*)?/[\w.~@+-][^\s,;:"'`\[\](){}<>&]*""")
"""An absolute path, or one from somebody's home, within a text. What ends it may also be part of its name."""
_HOMES = (Path("/home"), Path("/Users"))
"""Folders of homes, whose parts are named after persons."""
_EMBEDDED = re.compile(r"""(data:[^"'()\s]+)""")
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL)
"""A tag, or a program or style sheet as a whole: what looks like a path there may be no path."""


class PrivatePaths:
    """Shortens absolute paths: those in the run's folder begin with its name, those below the present folder are
    relative to it, of all others the last part is left, unless it is a person's name. Relative paths stay as they are.

    What was shortened in values is found again in pages that show these values.
    """

    def __init__(self, run: Path) -> None:
        """run: the run's folder."""
        home, here = Path.home(), Path.cwd()
        self._roots = {path: Path(_last(run.resolve())) for path in (run.absolute(), run.resolve())}
        # What is relative to one of these may begin with a person's name.
        if not any(one.is_relative_to(here) for one in (home, *_HOMES)):
            self._roots[here] = Path()
        self._shown = {str(path): str(name) for path, name in self._roots.items() if path != here}
        if len(home.parts) > 1:
            self._shown[str(home)] = "~"

    def values(self, value: Any) -> Any:
        """JSON values with every path in them shortened; keys are kept."""
        if isinstance(value, Mapping):
            return {key: self.values(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.values(item) for item in value]
        if not isinstance(value, str):
            return value
        if value.startswith("/") or re.match(r"~[\w-]*/", value):
            return self._note(value)
        return self.text(value)

    def text(self, text: str) -> str:
        """A line or a table with every path in it shortened."""
        return _PATH.sub(lambda found: self._note(found[0]), self._known(text))

    def page(self, html: str) -> str:
        """The same for a page; tags and embedded pictures stay as they are."""
        for part in _EMBEDDED.split(html)[::2]:
            for path in _PATH.findall(_TAG.sub("\n", part)):
                if path.count("/") > 1:
                    self._note(path)
        parts = _EMBEDDED.split(html)
        return "".join(part if number % 2 else self._known(part) for number, part in enumerate(parts))

    def _note(self, path: str) -> str:
        if path not in self._shown:
            self._shown[path] = self._short(path)
        return self._shown[path]

    def _short(self, path: str) -> str:
        for root, name in self._roots.items():
            if Path(path).is_relative_to(root):
                return str(name / Path(path).relative_to(root))
        return _last(Path(path))

    def _known(self, text: str) -> str:
        """Every path shortened before, however a page or JSON writes it."""
        written = {
            form: short
            for path, short in self._shown.items()
            for form in (path, escape(path), json.dumps(path)[1:-1], escape(json.dumps(path)[1:-1]))
        }
        longest_first = "|".join(map(re.escape, sorted(written, key=len, reverse=True)))
        return re.sub(rf"{_BEGIN}(?:{longest_first})(?![\w-]|\.\w)", lambda found: written[found[0]], text)


def _last(path: Path) -> str:
    """A path's last part, unless that is a person's name."""
    personal = path.name == Path.home().name or path.name.startswith("~") or path.parent in _HOMES
    return "…" if personal else path.name
