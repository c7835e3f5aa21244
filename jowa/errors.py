"""The one error a user can cause, and the one way to be stopped with everything kept."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """A mistake in what was asked: one clear sentence that says what to do and names the config key to change.

    Entry points print it without a traceback and exit with code 2.
    """


class Interrupted(Exception):
    """A signal ended a run after a whole step, and a checkpoint of that step is there.

    Entry points print how to go on, and exit with 128 + the signal's number so that schedulers requeue the job.
    """

    def __init__(self, signal_number: int, run: Path, place: str) -> None:
        """place: how far the run came, in words."""
        super().__init__(signal_number, run, place)
        self.signal_number = signal_number
        self.run = run
        self.place = place
