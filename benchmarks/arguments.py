"""What options may be: a wrong one is refused before anything is measured, by a sentence that names it."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jowa.errors import UserError
from jowa.games import NUM_ACTIONS


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def a_width(text: str) -> int:
    """A beam's width: at least one, and no more than there are actions to choose from."""
    width = _whole(text, 1)
    if width > NUM_ACTIONS:
        raise argparse.ArgumentTypeError(f"{width} is more than the {NUM_ACTIONS} actions to choose from")
    return width


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not '{text}'") from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, not {text}")
    return number


def a_file_to_write(text: str) -> Path:
    """A file that is not there yet, in a folder that is."""
    path = Path(text).expanduser()
    if path.exists():
        raise argparse.ArgumentTypeError(f"{path} is there already: name another file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path.parent} is no folder that can be written to: make it first")
    return path


def a_folder_to_fill(text: str) -> Path:
    """A folder that may be there or not."""
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a file: name a folder")
    return path


@contextmanager
def user_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """A UserError ends the program as a wrong option does: one sentence, no traceback, exit code 2."""
    try:
        yield
    except UserError as error:
        parser.error(str(error))


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not '{text}'") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
    return number
