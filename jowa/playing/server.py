"""The page on localhost: a few static files and one websocket, for this machine's own browsers only.

Whoever can reach the port is on this machine, but a foreign page in its browser could too: a request is refused unless
its Host is ours (a foreign name may be made to point here), a websocket unless its Origin is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from aiohttp import WSMsgType, web

from jowa.errors import UserError
from jowa.playing.commands import read_command
from jowa.playing.session import Session
from jowa.playing.state import done, opening, refusal
from jowa.playing.worker import Worker

ADDRESS = "127.0.0.1"

_LONGEST_READ = 2**16
"""Bytes of a message that is still answered; the connection of a longer one is closed."""

_PORT_LEFT_OUT = 80
"""Browsers don't name it in Host and Origin."""

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def listen(port: int) -> socket.socket:
    """A socket that listens on this machine alone; port 0 is any free one.

    Raises UserError when the port is in use or not ours to use.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port that was left a moment ago is free again; one that somebody listens on is not.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UserError(f"port={port} can't be used ({error.strerror}): choose another, or port=0 for any.") from error
    listening.setblocking(False)
    return listening


class Page:
    """The application around one session."""

    def __init__(self, session: Session, port: int) -> None:
        """at_rest: whether, after the end, nothing uses the session any more."""
        names = ("localhost", ADDRESS, "[::1]")
        self.hosts = frozenset(f"{name}:{port}" for name in names)
        if port == _PORT_LEFT_OUT:
            self.hosts |= frozenset(names)
        self.at_rest = True
        self._opening = opening(session)
        self._worker = Worker(session, self._publish)
        self._files = {
            path.name: path.read_bytes() for path in resources.files("jowa.playing").joinpath("page").iterdir()
        }
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state, self._number = "", 0
        self._changed = asyncio.Condition()
        self._tabs: set[web.WebSocketResponse] = set()
        self._opened = 0  # tabs so far

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/ws", self._talk, allow_head=False)
        application.router.add_get("/{name:[a-z_]*(?:[.][a-z]+)?}", self._file, allow_head=False)
        application.on_response_prepare.append(_secure)
        application.on_startup.append(self._start)
        application.on_shutdown.append(self._stop)
        return application

    async def _start(self, application: web.Application) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker.start()

    async def _stop(self, application: web.Application) -> None:
        goodbyes = [tab.close(code=1001, message=b"jowa.play has ended") for tab in self._tabs]
        # A tab that doesn't listen any more isn't waited for.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), timeout=2)
        self.at_rest = await asyncio.to_thread(self._worker.stop)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Only by a name of ours; the routes know nothing but GET."""
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return _plain(403, "This page is for this machine only: open it by the address that jowa.play printed.")
        try:
            return await handler(request)
        except web.HTTPException as refused:
            return _plain(refused.status, refused.reason)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"] or "index.html"
        if name not in self._files:
            return _plain(404, "There is no such page.")
        kind = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8")

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        """One tab: it is told the newest state, however slowly it listens, and its commands are carried out in turn."""
        origin = request.headers.get("Origin", "").lower()
        if origin.removeprefix("http://") not in self.hosts or not origin.startswith("http://"):
            return _plain(403, "Only this page itself may connect.")
        tab = web.WebSocketResponse(max_msg_size=_LONGEST_READ, heartbeat=30, timeout=1.0, compress=False)
        if not tab.can_prepare(request).ok:
            return _plain(400, "This is the address of a websocket.")
        await tab.prepare(request)
        self._tabs.add(tab)
        self._opened += 1
        number = self._opened
        self._worker.watch(len(self._tabs))
        telling = asyncio.create_task(self._tell(tab))
        try:
            with contextlib.suppress(ConnectionError):  # it is gone
                async for message in tab:
                    await self._hear(tab, number, message)
        finally:
            self._tabs.discard(tab)
            self._worker.watch(len(self._tabs))
            telling.cancel()
            self._worker.order(read_command('{"do": "hold", "keys": []}', number))
        return tab

    async def _hear(self, tab: web.WebSocketResponse, number: int, message: Any) -> None:
        try:
            if message.type != WSMsgType.TEXT:
                raise UserError("A message must be text, a JSON object.")
            await asyncio.wrap_future(self._worker.order(read_command(message.data, number)))
            answer = done()
        except UserError as error:
            answer = refusal(str(error))
        await tab.send_str(answer)

    async def _tell(self, tab: web.WebSocketResponse) -> None:
        known = 0
        with contextlib.suppress(ConnectionError):  # it is gone
            await tab.send_str(self._opening)
            while not tab.closed:
                async with self._changed:
                    while self._number == known:
                        await self._changed.wait()
                    state, known = self._state, self._number
                await tab.send_str(state)

    def _publish(self, state: str) -> None:
        assert self._loop is not None, "it was started by it"
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._note(state), self._loop)

    async def _note(self, state: str) -> None:
        async with self._changed:
            self._state, self._number = state, self._number + 1
            self._changed.notify_all()


async def serve(session: Session, listening: socket.socket, ready: Callable[[str], None]) -> bool:
    """Serve the page until a signal to stop; `ready` is called with its address once it can be opened.

    Returns whether the session came to rest; False while a thread is still at a decision.
    """
    port = listening.getsockname()[1]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # What strangers send isn't this process's error; they are answered, and nobody else needs to know.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    page = Page(session, port)
    runner = web.AppRunner(page.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        ready(f"http://{ADDRESS}:{port}/")
        await stop.wait()
    finally:
        await runner.cleanup()
    return page.at_rest


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _plain(status: int, sentence: str) -> web.Response:
    refused = web.Response(status=status, text=f"{sentence}\n")
    refused.force_close()
    return refused
