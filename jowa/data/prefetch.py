"""Prepare the next batches in one background thread while the current one is used."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over `items`, which a thread takes up to `depth` ahead of the consumer.

    An exception raised while an item is made surfaces in the consumer in that item's place. Use it in a `with` block,
    or call `close`, so that the thread stops when iteration is given up early.
    """

    def __init__(self, items: Iterable[T], depth: int = 2) -> None:
        """Start preparing at once; `items` is consumed by the thread alone."""
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._items, self._depth = items, depth
        self._ready: collections.deque[T] = collections.deque()
        self._error: BaseException | None = None
        self._finished = self._closed = False
        self._changed = threading.Condition()
        # A daemon: a consumer that forgets to close must not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._finished or self._closed)
            if self._closed:
                raise StopIteration
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            raise StopIteration

    def close(self) -> None:
        """Stop the thread (after the item it is making) and drop what was prepared."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                del item
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()
