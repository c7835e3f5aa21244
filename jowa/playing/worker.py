"""The one thread that touches a session: it carries commands out, lets the clock tick and says what has changed."""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future

import torch

from jowa.errors import UserError
from jowa.playing.commands import Command
from jowa.playing.session import Session
from jowa.playing.state import present, trouble


class Worker:
    """Runs a session; every public method may be called from any thread.

    Time goes on only while somebody watches. Where planning is slower than the speed asked for, steps follow each other
    without pause, and commands come between them.
    """

    def __init__(self, session: Session, publish: Callable[[str], None]) -> None:
        """publish: gets the state, as `present` writes it, whenever it has changed; called in the worker's thread."""
        self._session, self._publish = session, publish
        self._orders: queue.SimpleQueue[tuple[Command, Future[None]] | None] = queue.SimpleQueue()
        self._watched = 0
        self._due = 0.0
        self._problem = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def start(self) -> None:
        """Begin; the first state is published at once."""
        self._thread.start()

    def stop(self) -> bool:
        """End after the step it is at; False if that takes longer than a moment, and the session is still in use."""
        self._stopped.set()
        self._orders.put(None)
        self._thread.join(timeout=1)
        return not self._thread.is_alive()

    def watch(self, watchers: int) -> None:
        """So many are watching now."""
        self._watched = watchers
        self._orders.put(None)

    def order(self, command: Command) -> Future[None]:
        """Have a command carried out; the future ends with it, or with the UserError that refused it."""
        done: Future[None] = Future()
        self._orders.put((command, done))
        return done

    def _run(self) -> None:
        device = self._session.agent.model.device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # which is each thread's own
        self._tell()
        while not self._stopped.is_set():
            self._one_turn()

    def _one_turn(self) -> None:
        """A tick if it is due, then a command if there is one, so that neither keeps the other waiting."""
        now, period = time.monotonic(), 1 / self._session.speed
        if self._goes_on() and now >= self._due:
            # What was late is not made up for: the game never runs faster than asked.
            self._due = period + (self._due if now - self._due < period else now)
            self._attempt(self._session.tick)
            self._tell()
        wait = max(0.0, self._due - time.monotonic()) if self._goes_on() else None
        try:
            order = self._orders.get(timeout=wait)
        except queue.Empty:
            return
        if order is not None:
            self._carry_out(*order)

    def _goes_on(self) -> bool:
        return self._session.running and self._watched > 0

    def _carry_out(self, command: Command, done: Future[None]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            command.apply(self._session)
            self._problem = ""
        except UserError as error:
            done.set_exception(error)
            return
        except Exception as error:  # the session has to live on
            self._fail(error)
        self._tell()
        done.set_result(None)

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # environments and devices fail in many ways
            self._fail(error)

    def _tell(self) -> None:
        """Publish the state, without a plan if that is what fails, and the problem alone if everything does."""
        state = ""

        def write() -> None:
            nonlocal state
            state = present(self._session, self._problem)

        self._attempt(write)
        if not state:
            self._attempt(write)
        self._publish(state or trouble(self._problem))

    def _fail(self, error: Exception) -> None:
        """Pause, and tell why."""
        self._session.run(False)
        if isinstance(error, UserError):
            self._problem = str(error)
            return
        traceback.print_exception(error, file=sys.stderr)
        reason = next(iter(str(error).splitlines()), "")
        self._problem = f"The game can't go on ({type(error).__name__}: {reason}): restart it, or plan otherwise."
