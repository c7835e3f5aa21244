"""The page's server: whom it answers, what it refuses, and that nothing it is sent ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from play_fixtures import served, small_session

from jowa.errors import UserError
from jowa.playing.server import Page, listen


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(small_session()) as port:
        yield port


def exchange(port: int, request: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it had more to send than the server read
            while part := connection.recv(65536):
                answer += part
        return answer


def get(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    lines = {"Host": f"127.0.0.1:{port}", "Connection": "close"} | {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    answer = exchange(port, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
    top, _, body = answer.decode().partition("\r\n\r\n")
    status, *fields = top.split("\r\n")
    return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), body


UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


def test_the_pages_files_come_with_their_guards(port: int) -> None:
    for path, kind in (("/", "html"), ("/style.css", "css"), ("/main.js", "javascript"), ("/plan.js", "javascript")):
        status, headers, body = get(port, path)
        assert status == 200 and kind in headers["Content-Type"] and len(body) > 300
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert "http://" not in body.replace("http://www.w3.org", "") and "https://" not in body, "no other place"
    for name in ("localhost", "LOCALHOST", "[::1]"):
        assert get(port, Host=f"{name}:{port}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{}", "", "127.0.0.1:{}@evil"]
)
def test_a_request_by_another_name_is_refused(port: int, host: str) -> None:
    for path in ("/", "/ws", "/nothing"):
        status, headers, body = get(port, path, **UPGRADE | {"Host": host.format(port), "Origin": "http://evil"})
        assert status == 403 and "this machine only" in body and headers["X-Content-Type-Options"] == "nosniff"


def test_only_one_host_counts(port: int) -> None:
    twice = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil\r\nConnection: close\r\n\r\n".encode()
    assert exchange(port, twice).split()[1] in (b"400", b"403")
    assert exchange(port, b"GET / HTTP/1.0\r\n\r\n").split()[1] == b"403"


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1:{}", "http://127.0.0.1"])
def test_a_websocket_of_another_page_is_refused(port: int, origin: str | None) -> None:
    headers = UPGRADE | ({} if origin is None else {"Origin": origin.format(port)})
    assert get(port, "/ws", **headers)[0] == 403
    assert get(port, "/ws", Origin=f"http://localhost:{port}")[0] == 400, "no websocket at all"


def test_other_methods_and_places_are_refused(port: int) -> None:
    for method in ("POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"):
        assert get(port, "/", method)[0] == 405
    for path in ("/nothing", "/../server.py", "/%2e%2e/server.py", "/page/index.html", "/__init__.py", "/a.b.c"):
        assert get(port, path)[0] == 404


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"hello\r\n\r\n", b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b"\xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["tls", "words", "short", "version", "header", "long header", "long path", "bytes", "length"],
)  # fmt: skip
def test_a_malformed_request_is_a_400_and_the_server_lives_on(port: int, request_: bytes) -> None:
    assert exchange(port, request_).split()[1] == b"400"
    assert get(port)[0] == 200


class Tab:
    """A page that is open."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def next(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """The next message of that kind with those values."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), 20)
            assert message.type == aiohttp.WSMsgType.TEXT, message
            values = json.loads(message.data)
            if values["kind"] == kind and all(values[key] == value for key, value in wanted.items()):
                return values

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))


def with_tabs(port: int, count: int, talk: Any) -> None:
    """Open so many tabs and talk."""

    async def main() -> None:
        url, origin = f"http://127.0.0.1:{port}/ws", f"http://localhost:{port}"
        async with aiohttp.ClientSession() as session:
            tabs = [Tab(await session.ws_connect(url, origin=origin, max_msg_size=0)) for _ in range(count)]
            await talk(*tabs)

    asyncio.run(main())


def test_tabs_share_the_session(port: int) -> None:
    async def talk(one: Tab, other: Tab) -> None:
        assert (await one.next("opening"))["limits"]["blocks"] == 8
        await other.next("state", running=True)
        await one.say(do="run", running=False)
        paused = await other.next("state", running=False)
        await one.say(do="step")
        stepped = await other.next("state", agent_steps=paused["agent_steps"] + 1)
        await other.say(do="run", running=True)
        await one.next("state", agent_steps=stepped["agent_steps"] + 3)

    with_tabs(port, 2, talk)


def test_a_tab_that_closes_lets_go_of_what_it_holds_itself(port: int) -> None:
    async def talk(one: Tab, other: Tab, third: Tab) -> None:
        await one.say(do="run", running=False)
        await one.say(do="drive", driver="human")
        await one.say(do="hold", keys=["RIGHT"])
        await one.next("state", holds="RIGHT")
        await other.socket.close()
        assert (await one.next("state"))["holds"] == "RIGHT"
        await third.next("state", holds="RIGHT")
        await one.socket.close()
        await third.next("state", holds="NOOP")
        await third.say(do="drive", driver="agent")

    with_tabs(port, 3, talk)


def test_at_port_80_its_names_go_without_the_port() -> None:
    names = {"127.0.0.1": 200, "localhost": 200, "localhost:80": 200, "localhost:8080": 403, "evil.example": 403}

    async def main() -> None:
        async with TestClient(TestServer(Page(small_session(), 80).application())) as client:
            for host, status in names.items():
                assert (await client.get("/", headers={"Host": host})).status == status, host
                fields = {"Host": "localhost", "Origin": f"http://{host}"}
                # 400: it may connect, but this is no websocket.
                assert (await client.get("/ws", headers=fields)).status == (400 if status == 200 else 403), host

    asyncio.run(main())


def test_bad_messages_get_a_sentence_and_the_next_one_is_heard(port: int) -> None:
    async def talk(tab: Tab, other: Tab) -> None:
        await tab.say(do="run", running=False)
        before = await tab.next("state", running=False)
        for text, sentence in (
            ("{", "can't be read"),
            ('{"do": "fly"}', "do must be one of"), ('{"do": "speed", "speed": 1e9}', "1 to 30"),
            ("x" * 5000, "4,096 bytes"), ('{"do": "step", "action": 17}', "no legal action of Pong"),
            ('{"do": "game", "game": "Pnog"}', "did you mean 'Pong'"),
            ('{"do": "plan_with", "horizon": 7}', "exceed the 8 frames"),
        ):  # fmt: skip
            await tab.socket.send_str(text)
            assert sentence in (await tab.next("refusal"))["sentence"]
        await tab.socket.send_bytes(b'{"do": "step"}')
        assert (await tab.next("refusal"))["sentence"] == "A message must be text, a JSON object."
        await tab.say(do="step")
        after = await tab.next("state", agent_steps=before["agent_steps"] + 1)
        assert after["planner"] == before["planner"] and after["speed"] == before["speed"]
        await tab.socket.send_str("x" * 100_000)
        closed = await asyncio.wait_for(tab.socket.receive(), 20)
        while closed.type == aiohttp.WSMsgType.TEXT:
            closed = await asyncio.wait_for(tab.socket.receive(), 20)
        assert closed.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await other.say(do="step")
        await other.next("state", agent_steps=after["agent_steps"] + 1)

    with_tabs(port, 2, talk)


@pytest.mark.parametrize(
    "frame", [b"\x00\x00\x00", b"\x81\x05hello", b"\xff\xff\xff\xff\xff\xff", b"\x83\x80abcd", b"\x81\x82abcd\x9e\x9d"],
    ids=["continuation", "unmasked", "reserved", "opcode", "not UTF-8"],
)  # fmt: skip
def test_a_malformed_websocket_frame_ends_that_connection_only(port: int, frame: bytes) -> None:
    fields = UPGRADE | {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}"}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode() + frame)
        assert connection.recv(65536).split()[1] == b"101"

    async def talk(tab: Tab) -> None:
        await tab.next("opening")
        await tab.next("state")

    with_tabs(port, 1, talk)


class SlowTab:
    """Takes one message whenever it is let."""

    closed = False

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.ready = asyncio.Semaphore(0)

    async def send_str(self, text: str) -> None:
        await self.ready.acquire()
        self.heard.append(text)


def test_a_tab_that_listens_slowly_gets_the_newest_state_only() -> None:
    async def main() -> list[str]:
        page, tab = Page(small_session(), 1), SlowTab()
        telling = asyncio.create_task(page._tell(tab))
        for number in range(50):
            await page._note(str(number))
            if number in (10, 20):
                tab.ready.release()
            await asyncio.sleep(0)
        tab.ready.release()
        while len(tab.heard) < 3:
            await asyncio.sleep(0)
        telling.cancel()
        return tab.heard[1:]

    first, second = map(int, asyncio.run(main()))
    assert 10 <= first <= 12 and 20 <= second <= 22


def test_a_port_in_use_is_one_sentence(port: int) -> None:
    with pytest.raises(UserError, match=rf"^port={port} can't be used \(Address already in use\): choose another, or"):
        listen(port)
    with listen(0) as free:
        assert free.getsockname()[0] == "127.0.0.1" and free.getsockname()[1] > 0
