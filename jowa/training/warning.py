"""What a run tells beside its progress bar."""

from __future__ import annotations

import contextlib
import os
import re
import sys

from tqdm import tqdm


def warn(text: str) -> None:
    """One line on stderr that the progress bar doesn't run into."""
    with contextlib.suppress(OSError):
        tqdm.write(f"jowa: {text}.", file=sys.stderr)
        sys.stderr.flush()


def reason_of(error: BaseException) -> str:
    """Why a file can't be written; libraries wrap what the system said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number.group(1))) if number else str(error).splitlines()[0]
