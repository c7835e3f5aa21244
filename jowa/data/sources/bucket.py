"""Reads a public Google Cloud Storage bucket: what is in it, and single objects, whole and checked or not at all.

An object arrives in `<name>.<generation>.part` beside its destination and bears its name only once its size and its
crc32c are those the bucket states. A broken download, also one whose process was killed, goes on where it stopped; the
generation in the name keeps bytes of an object that has been replaced from being continued with those of the new one.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, responses
from pathlib import Path
from typing import Any

from jowa.errors import UserError
from jowa.files import full_disk, put_aside, sync_file, sync_folder

Advance = Callable[[int], Any]
"""Told how many more bytes are there; a negative number when some had to be thrown away."""

_BUSY = {408, 429, 500, 502, 503, 504}
_GONE = {404, 412}
_LONGEST_WAIT = 60.0
_MIB = 1 << 20


class Unavailable(Exception):
    """An object can't be had; the text says why."""


class Stopped(Exception):
    """The download was told to end; what has arrived stays."""


class _Discard(Exception):
    """What has arrived is of no use."""


@dataclass(frozen=True)
class RemoteObject:
    """An object as the bucket describes it: size in bytes, crc32c in base64, generation changing with the content."""

    name: str
    size: int
    crc32c: str | None
    generation: int


@dataclass(frozen=True)
class Patience:
    """How hard to try: `attempts` failures in a row are the end.

    backoff: seconds before the second try; each further wait is twice as long, up to a minute. timeout: seconds without
    an answer that count as a failure.
    """

    attempts: int
    backoff: float
    timeout: float

    def check(self) -> None:
        """Raise UserError for numbers that make no sense."""
        if not (self.attempts >= 1 and self.backoff >= 0 and self.timeout > 0):
            numbers = f"attempts={self.attempts}, backoff={self.backoff:g}, timeout={self.timeout:g}"
            raise UserError(f"{numbers}: all must be more than 0 (backoff may be 0).")


class Bucket:
    """Anonymous reading of a bucket, by one thread at a time; setting `stop` ends what that thread does.

    The environment variable STORAGE_EMULATOR_HOST names another server than Google's.
    """

    def __init__(self, name: str, patience: Patience) -> None:
        """Prepare; nothing is asked of the server yet. UserError if the packages are not installed."""
        self.name = name
        self.stop = threading.Event()
        self._patience = patience
        self._bucket = _anonymous_client().bucket(name)

    def objects(self, prefix: str) -> dict[str, RemoteObject]:
        """All objects whose names begin with `prefix`, by name; UserError if the bucket can't be listed."""

        def listing() -> dict[str, RemoteObject]:
            fields = "items(name,size,crc32c,generation),nextPageToken"
            blobs = self._bucket.list_blobs(prefix=prefix, fields=fields, timeout=self._patience.timeout, retry=None)
            return {blob.name: _remote(blob) for blob in blobs}

        try:
            found: dict[str, RemoteObject] = self._patiently(listing)
            return found
        except Unavailable as error:
            again = "check the network (HTTPS_PROXY names a proxy) and start again"
            raise UserError(f"The bucket {self.name} can't be listed: {error}; {again}.") from error

    def download(self, remote: RemoteObject, path: Path, advance: Advance = lambda count: None) -> Path | None:
        """Have the object at `path`; one that is there already and is right is left as it is.

        `remote` is what `objects` said; should the object have changed since, the new one is fetched. `advance` is told
        the bytes as they arrive, those found on disk included.

        Returns:
            Where another file, which was at `path` until the object had arrived, is now; None if there was none.

        Raises:
            Unavailable: it can't be had, with the reason; never is there a wrong byte at `path`.
            UserError: the disk is full or can't be written.
            Stopped: `stop` was set.
        """
        if path.is_file() and _size(path) == remote.size and crc32c(path) == remote.crc32c:
            advance(remote.size)
            return None
        drops, discards = _Failures(self._patience, self.stop), _Failures(self._patience, self.stop)
        while True:
            with _disk(path):
                part = _prepared_part(path, remote)
            try:
                self._complete(remote, part, drops, advance)
                break
            except _Discard as error:
                advance(-_size(part))
                part.unlink(missing_ok=True)
                discards.another(str(error))
                remote = self._as_it_is_now(remote.name)
        with _disk(path):
            sync_file(part)
            old = put_aside(path)
            part.replace(path)
            sync_folder(path.parent)
        return old

    def _complete(self, remote: RemoteObject, part: Path, drops: _Failures, advance: Advance) -> None:
        """Bring `part` to its full size and check it; _Discard if its content is wrong or the object has changed."""
        advance(_size(part))
        while (start := _size(part)) < remote.size:
            reason = "the connection breaks"
            try:
                self._receive(remote, part, start, advance)
            except (Stopped, UserError, _Discard):
                raise
            except Exception as error:
                if _status(error) in _GONE:
                    raise _Discard("it changes while it is fetched") from error
                reason = self._reason_to_retry(error)
            if (size := _size(part)) < remote.size:
                drops.another(reason, progress=size - start >= _MIB)
        if _size(part) != remote.size or crc32c(part) != remote.crc32c:
            raise _Discard("its content arrives corrupted")

    def _receive(self, remote: RemoteObject, part: Path, start: int, advance: Advance) -> None:
        blob = self._bucket.blob(remote.name, generation=remote.generation)
        with _Sink(part, remote.size - start, self.stop, advance) as sink:
            # Raw: the checksum is of the bytes as stored. Its own retries would hide how far a download has come.
            settings = {"raw_download": True, "checksum": None, "retry": None, "timeout": self._patience.timeout}
            blob.download_to_file(sink, start=start or None, **settings)

    def _as_it_is_now(self, name: str) -> RemoteObject:
        blob = self._patiently(lambda: self._bucket.get_blob(name, timeout=self._patience.timeout, retry=None))
        if blob is None:
            raise Unavailable("it is no longer in the bucket")
        return _remote(blob)

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        failures = _Failures(self._patience, self.stop)
        while True:
            try:
                return ask()
            except Exception as error:
                reason = self._reason_to_retry(error)
            failures.another(reason)

    def _reason_to_retry(self, error: Exception) -> str:
        """What failed, if trying again may help; else Unavailable, or the error itself if it is none of a server."""
        from urllib3.exceptions import HTTPError

        status, kind = _status(error), type(error).__name__
        if status is not None:
            reason = f"the server answers {status} {responses.get(status, '')}".rstrip()
            if status not in _BUSY:
                raise Unavailable(reason) from error
            return reason
        if not isinstance(error, OSError | HTTPError | HTTPException):  # what requests raises is an OSError
            raise error
        return f"no answer in {self._patience.timeout:g} s" if "Timeout" in kind else f"the connection breaks ({kind})"


class _Failures:
    """Counts failures in a row and waits longer after each."""

    def __init__(self, patience: Patience, stop: threading.Event) -> None:
        self._patience, self._stop, self._count = patience, stop, 0

    def another(self, reason: str, progress: bool = False) -> None:
        """Wait before the next try; Unavailable after the last, Stopped if told to end. Progress begins a new row."""
        self._count = 1 if progress else self._count + 1
        if self._count >= self._patience.attempts:
            raise Unavailable(f"{reason}, {self._count} times in a row" if self._count > 1 else reason)
        if self._stop.wait(min(self._patience.backoff * 2 ** (self._count - 1), _LONGEST_WAIT)):
            raise Stopped


class _Sink:
    """The file a body is appended to: at most `room` bytes of it, and no further once `stop` is set."""

    def __init__(self, part: Path, room: int, stop: threading.Event, advance: Advance) -> None:
        self._part, self._room, self._stop, self._advance = part, room, stop, advance

    def __enter__(self) -> _Sink:
        with _disk(self._part):
            self._handle = self._part.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        with _disk(self._part):
            self._handle.close()

    def write(self, chunk: bytes) -> int:
        if self._stop.is_set():
            raise Stopped
        self._room -= len(chunk)
        if self._room < 0:
            # A server that ignores ranges starts from the first byte each time.
            raise _Discard("more arrives than it has")
        with _disk(self._part):
            self._handle.write(chunk)
        self._advance(len(chunk))
        return len(chunk)


def crc32c(path: Path) -> str:
    """A file's crc32c as buckets write it: base64 of its four bytes, the highest first."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as handle:
        while chunk := handle.read(_MIB):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode("ascii")


def bytes_there(remote: RemoteObject, path: Path) -> int:
    """Bytes of the object that are on disk, whole at `path` or in its `.part`; they are not checked here."""
    return remote.size if _size(path) == remote.size else min(_size(_part(path, remote)), remote.size)


def _anonymous_client() -> Any:
    try:
        from google.cloud.storage import Client
    except ImportError:
        raise UserError("Fetching needs google-cloud-storage: pip install 'jowa[rlu]'.") from None
    return Client.create_anonymous_client()


def _remote(blob: Any) -> RemoteObject:
    return RemoteObject(blob.name, int(blob.size), blob.crc32c, int(blob.generation))


def _part(path: Path, remote: RemoteObject) -> Path:
    return path.with_name(f"{path.name}.{remote.generation}.part")


def _prepared_part(path: Path, remote: RemoteObject) -> Path:
    """The object's part, which exists now; those of other generations don't."""
    part = _part(path, remote)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    for other in set(path.parent.glob(f"{path.name}.*.part")) - {part}:
        other.unlink(missing_ok=True)
    return part


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _status(error: Exception) -> int | None:
    """The HTTP status a server refused with, None if there was no answer."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import InvalidOperation

    if isinstance(error, GoogleAPICallError):
        return error.code
    # A 401 makes the client refresh its credentials, which anonymous ones can't.
    return 401 if isinstance(error, InvalidOperation) else None


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """The disk's errors in one sentence, and as nothing that could be taken for an error of the connection."""
    try:
        with full_disk(path):
            yield
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}).") from error
