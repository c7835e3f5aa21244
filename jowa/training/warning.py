"""What a run tells beside its progress bar."""

from __future__ import annotations

import sys

from tqdm import tqdm


def warn(text: str) -> None:
    """One line on stderr that the progress bar doesn't run into."""
    tqdm.write(f"jowa: {text}.", file=sys.stderr)
    sys.stderr.flush()
