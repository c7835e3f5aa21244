"""Lists of numbers as users write them: [0, 3-5]."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jowa.errors import UserError


def numbers(key: str, entries: Sequence[str], first: int = 0, last: int = 999_999) -> tuple[int, ...]:
    """Numbers and ranges such as 3-5 as ascending numbers, each once.

    Raises UserError, naming the `key`, for what is neither, lies outside first … last, or leaves no number.
    """
    found: set[int] = set()
    for entry in entries:
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", str(entry), re.ASCII)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= low <= high <= last:
            raise UserError(
                f"{key} must hold numbers from {first} to {last} or ranges such as {first}-{min(last, first + 4)}, not "
                f"'{entry}'."
            )
        found.update(range(low, high + 1))
    if not found:
        raise UserError(f"{key} must name at least one number from {first} to {last}.")
    return tuple(sorted(found))
