"""The page in a real browser without a screen: what it shows, and that its controls reach the game."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from play_fixtures import served, small_agent, small_session, toy_session

from jowa.playing.session import Session

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for found in map(shutil.which, NAMES) if found), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page of a session, and what it complained of."""

    def __init__(self, browser: Any, port: int, **look: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | look)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"http://127.0.0.1:{port}/")
        self.page.wait_for_selector("#connection[data-open=true]")
        self.until("Number(text('agent_steps')) >= 0")

    def until(self, condition: str) -> None:
        """Wait for a condition in the page's own words; text(id) is what an element shows."""
        self.page.wait_for_function(f"() => {{ const text = (id) => document.getElementById(id).textContent; "
                                    f"return {condition}; }}")  # fmt: skip

    def text(self, name: str) -> str:
        return str(self.page.text_content(f"#{name}"))

    def pause(self) -> None:
        self.page.click("#run")
        self.until("text('run') === 'Play'")


@pytest.fixture
def session() -> Iterator[Session]:
    with closing(small_session("Freeway", small_agent("Freeway", "Pong"))) as session:
        yield session


@pytest.fixture
def opened(browser: Any, session: Session) -> Iterator[Opened]:
    with served(session) as port:
        opened = Opened(browser, port)
        yield opened
        assert opened.complaints == []
        opened.context.close()


def test_one_watches_pauses_and_steps_through_the_plan(opened: Opened, session: Session) -> None:
    page = opened.page
    opened.until("Number(text('agent_steps')) > 3")
    opened.pause()
    steps, screen = session.real.agent_steps, page.get_attribute("#screen", "src")
    opened.until(f"Number(text('agent_steps')) === {steps}")
    assert page.locator("#bars .chosen").count() == 3 and page.locator(".future").count() == 2
    assert [img.count() for img in (page.locator(".strip img"),)] == [2]
    page.click("#next")
    first = page.get_attribute(".future >> nth=0 >> img", "src")
    assert page.get_attribute("#imagined", "src") == first and "Future 1, step 1 of 1" in opened.text("imagined_words")
    page.click(".future >> nth=1 >> .strip button")
    assert "Future 2" in opened.text("imagined_words")
    page.click("#previous")
    page.click("#previous")
    assert "The present" in opened.text("imagined_words")
    assert session.thought is not None
    chosen = session.thought.action
    page.click("#follow")
    opened.until(f"Number(text('agent_steps')) === {steps + 1}")
    assert session.played is not None and session.played.action == chosen
    assert page.get_attribute("#screen", "src") != screen
    page.click("#step")
    opened.until(f"Number(text('agent_steps')) === {steps + 2}")
    page.click("#restart")
    opened.until("text('episode') === '1'")
    session.thinker.decode = {}.__getitem__
    page.click("#step")
    opened.until("text('problem').includes('go on (KeyError')")
    del session.thinker.decode
    page.click("#restart")
    opened.until("text('episode') === '2' && text('problem') === ''")


def test_one_takes_over_by_keyboard_and_by_buttons(opened: Opened, session: Session) -> None:
    page = opened.page
    page.click("#driver_human", force=True)
    opened.until("text('holds') === 'NOOP' && text('played') === 'NOOP, you'")
    page.keyboard.down("ArrowUp")
    opened.until("text('holds') === 'UP' && text('played') === 'UP, you'")
    assert page.evaluate("scrollY") == 0, "the arrow moves the player, not the page"
    page.keyboard.down("ArrowLeft")
    opened.until("text('played') === 'UP, you'")
    page.keyboard.up("ArrowLeft")
    page.keyboard.up("ArrowUp")
    opened.until("text('played') === 'NOOP, you'")
    assert opened.text("plan_words").startswith("It would play")
    page.click("#shows_plan")
    opened.until("text('plan_words').startsWith('You play alone')")
    page.hover("#pad [data-key=DOWN]")
    page.mouse.down()
    opened.until("text('played') === 'DOWN, you'")
    page.mouse.up()
    opened.until("text('played') === 'NOOP, you'")
    page.click("#driver_agent", force=True)
    opened.until("text('played').endsWith('the agent')")
    assert page.is_hidden("#hands")


def test_one_dreams_and_wakes_where_one_was(opened: Opened, session: Session) -> None:
    page = opened.page
    opened.until("Number(text('agent_steps')) > 3")
    opened.pause()
    steps, screen = session.real.agent_steps, page.get_attribute("#screen", "src")
    page.click("#world_here", force=True)
    opened.until("text('world_caption') === 'The dream, begun at the present screen'")
    assert page.get_attribute("#screen", "src") == screen and opened.text("agent_steps") == "0"
    page.click("#step")
    opened.until("Number(text('agent_steps')) === 1")
    assert page.get_attribute("#screen", "src") != screen and page.get_attribute("#seen", "src") == screen
    page.click("#world_elsewhere", force=True)
    opened.until("text('world_caption').includes('random actions')")
    page.click("#world_real", force=True)
    opened.until(f"text('world_caption') === 'The real game' && Number(text('agent_steps')) === {steps}")
    assert page.get_attribute("#screen", "src") == screen


def test_planner_and_game_change_while_it_runs(opened: Opened, session: Session) -> None:
    page = opened.page
    opened.until("text('plan_words').endsWith('(beam: 2 futures of 1 agent step).')")
    page.fill("#context", "")
    page.click("#apply")
    opened.until("text('settings_refusal') === 'context is empty: give it a whole number from 1 to 8.'")
    page.fill("#context", "3")
    page.fill("#width", "3")
    page.fill("#horizon", "2")
    page.click("#apply")
    opened.until("text('plan_words').includes('3 futures of 2 agent steps')")
    assert page.locator(".strip img").count() == 6
    page.fill("#horizon", "6")
    page.click("#apply")
    opened.until("text('settings_refusal').startsWith('planner.context=3 and planner.horizon=6 exceed the 8 frames')")
    assert session.planner.horizon == 2 and page.input_value("#horizon") == "6", "what was written can be mended"
    page.select_option("#planner", "greedy")
    page.click("#apply")
    opened.until("document.getElementById('no_future') && text('plan_words').includes('greedy')")
    assert page.is_visible("#no_future") and page.is_hidden("#settings_refusal")
    page.select_option("#planner", "mcts")
    page.fill("#horizon", "1")
    page.fill("#simulations", "1")
    page.click("#apply")
    opened.until(
        "text('plan_words').includes('(mcts: 1 simulation up to 1 agent step deep') "
        "&& document.querySelector('.strip img')"
    )
    page.select_option("#game", "Boxing")
    opened.until("text('title') === 'jowa.play: Boxing'")
    assert "never trained on Boxing" in opened.text("warning") and page.is_visible("#warning")
    assert page.locator("#bars i").count() == 18
    page.select_option("#game", "Pong")
    opened.until("text('title') === 'jowa.play: Pong'")
    assert page.is_hidden("#warning")


def test_number_keys_play_a_game_with_actions_of_its_own(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = toy_session(monkeypatch)
    session.drive("human")
    with closing(session), served(session) as port:
        opened = Opened(browser, port)
        opened.page.keyboard.press("3")
        opened.until("text('agent_steps') === '1' && text('reward') === '2' && text('played') === '2, you'")
        opened.page.click("#pad [data-action='1']")
        opened.until("text('agent_steps') === '2' && text('reward') === '1'")
        opened.page.focus("#pad [data-action='2']")
        opened.page.keyboard.press("Enter")
        opened.until("text('agent_steps') === '3' && text('reward') === '2'")
        assert opened.complaints == []
        opened.context.close()


def test_it_finds_its_session_again(browser: Any) -> None:
    session = small_session()
    with served(session) as port:
        opened = Opened(browser, port)
    opened.until("document.getElementById('connection').dataset.open === 'false'")
    assert "Trying again" in opened.text("connection")
    with served(session, port):
        opened.until("document.getElementById('connection').dataset.open === 'true'")
        steps = int(opened.text("agent_steps"))
        opened.until(f"Number(text('agent_steps')) > {steps + 1}")
        opened.context.close()
    session.close()


def test_it_fits_a_phone_and_a_dark_room(browser: Any, tmp_path: Path) -> None:
    session = small_session("Boxing", small_agent("Boxing"))
    session.plan_with(width=3, horizon=4, context=4)
    session.drive("human")
    shades = {}
    with closing(session), served(session) as port:
        for scheme in ("light", "dark"):
            opened = Opened(browser, port, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
            page = opened.page
            page.wait_for_selector(".strip img")
            assert page.evaluate("document.documentElement.scrollWidth") == 390
            shades[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            page.tap("#pad [data-key=FIRE]")
            opened.until("text('holds') === 'NOOP'")
            assert page.locator("#screen").bounding_box()["y"] + 84 < page.locator("#pad").bounding_box()["y"] < 700
            unnamed = "[...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
            assert page.evaluate(unnamed) == 0 and opened.complaints == []
            opened.context.close()
    assert shades == {"light": "rgb(251, 250, 247)", "dark": "rgb(20, 23, 28)"}
