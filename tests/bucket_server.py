"""A bucket on this machine that misbehaves as told: just the part of Cloud Storage's JSON API that is read from."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

PAGE = 2
PIECE = 4096


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    kind: `drop` closes the connection before byte `at` of the object, `reset` too and may lose what was sent, `end`
    does so without having said how much was to come, `corrupt` changes that byte, `busy` answers with status `at`,
    `silent` sends nothing for `at` seconds, `whole` ignores the range asked for, `long` sends `at` bytes too many.
    """

    kind: str
    at: int = 0


class BucketServer:
    """A context manager; `host` is what STORAGE_EMULATOR_HOST must be while it serves.

    Attributes:
        objects: contents by name; may be changed through `put`.
        requests: of every answer begun, the object's name (or `list …`, `get …`) and the first byte asked for.
        faults: an object's name (or `list`, `get`) to the faults of its answers, in order; None is no fault.
        on_piece: told the object's name and the first byte not yet sent, before each piece that is sent.
    """

    def __init__(self, objects: dict[str, bytes], bucket: str = "rl_unplugged") -> None:
        self.objects: dict[str, bytes] = {}
        self.generations: dict[str, int] = {}
        self.bucket = bucket
        self.requests: list[tuple[str, int]] = []
        self.faults: dict[str, Iterator[Fault | None]] = {}
        self.on_piece: Callable[[str, int], None] = lambda name, at: None
        self._lock = threading.Lock()
        for name, content in objects.items():
            self.put(name, content)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, name: str, content: bytes) -> None:
        """Add or replace an object; its generation is a new one."""
        with self._lock:
            self.objects[name] = content
            self.generations[name] = self.generations.get(name, 1_700_000_000_000_000) + 1

    def fail(self, name: str, *faults: Fault | None, forever: bool = False) -> None:
        """Have the next answers about `name` fail; the last fault goes on for ever if asked to."""
        rest: Iterable[Fault | None] = repeat(faults[-1] if forever else None)
        self.faults[name] = chain(faults, rest)

    def fault(self, name: str) -> Fault | None:
        """What goes wrong with the answer that begins now."""
        with self._lock:
            return next(self.faults.get(name, repeat(None)))

    def describe(self, name: str) -> dict[str, Any]:
        """An object as the API describes it."""
        content = self.objects[name]
        checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        generation = str(self.generations[name])
        return {"name": name, "size": str(len(content)), "crc32c": checksum, "generation": generation}

    def downloads(self, name: str) -> list[int]:
        """The first bytes asked for, download by download."""
        return [start for asked, start in self.requests if asked == name]

    def __enter__(self) -> BucketServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(bucket: BucketServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        store = bucket

    return Handler


class _Handler(BaseHTTPRequestHandler):
    store: BucketServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        root = f"/storage/v1/b/{self.store.bucket}/o"
        name = unquote(url.path.removeprefix("/download").removeprefix(root).removeprefix("/"))
        if url.path == root:
            self._list(query)
        elif url.path.startswith(f"{root}/"):
            self._get(name)
        elif url.path.startswith(f"/download{root}/"):
            self._media(name, query)
        else:
            self._json(404, {"error": {"code": 404, "message": "no such bucket"}})

    def _list(self, query: dict[str, str]) -> None:
        if self._fails("list", f"list {query['prefix']}"):
            return
        names = sorted(name for name in self.store.objects if name.startswith(query["prefix"]))
        first = int(query.get("pageToken", 0))
        answer: dict[str, Any] = {"items": [self.store.describe(name) for name in names[first : first + PAGE]]}
        if first + PAGE < len(names):
            answer["nextPageToken"] = str(first + PAGE)
        self._json(200, answer)

    def _get(self, name: str) -> None:
        if self._fails("get", f"get {name}"):
            return
        if name in self.store.objects:
            self._json(200, self.store.describe(name))
        else:
            self._json(404, {"error": {"code": 404, "message": "no such object"}})

    def _fails(self, key: str, request: str) -> bool:
        self.store.requests.append((request, 0))
        fault = self.store.fault(key)
        if fault is not None:
            self._refuse(fault)
        return fault is not None

    def _refuse(self, fault: Fault) -> None:
        if fault.kind == "busy":
            self._json(fault.at, {"error": {"code": fault.at, "message": "not now"}})
        else:
            time.sleep(fault.at if fault.kind == "silent" else 0)
            self.close_connection = True

    def _media(self, name: str, query: dict[str, str]) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.store.requests.append((name, start))
        fault = self.store.fault(name) or Fault("none")
        if fault.kind in ("busy", "silent"):
            return self._refuse(fault)
        if name not in self.store.objects or query.get("generation") != str(self.store.generations[name]):
            return self._json(404, {"error": {"code": 404, "message": "no such object"}})
        content = bytearray(self.store.objects[name])
        if fault.kind == "corrupt":
            content[fault.at] ^= 1
        if fault.kind == "long":
            content += bytes(fault.at)
        start = 0 if fault.kind == "whole" else start
        self.send_response(206 if start else 200)
        if fault.kind == "end":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._send(name, bytes(content), start, fault)

    def _send(self, name: str, content: bytes, start: int, fault: Fault) -> None:
        end = max(start, fault.at) if fault.kind in ("drop", "reset", "end") else len(content)
        try:
            for at in range(start, end, PIECE):
                self.store.on_piece(name, at)
                self.wfile.write(content[at : min(at + PIECE, end)])
        except OSError:
            self.close_connection = True  # the client was killed
        if fault.kind in ("drop", "reset", "end"):
            self.close_connection = True
        if fault.kind == "reset":
            # Without lingering, closing resets.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
