"""The pictures of docs/: an evaluation's report and the page of jowa.play, taken in a headless Chromium.

    python scripts/screenshots.py --ckpt runs/demo --report runs/demo/evaluations/001/report.html

Needs the package playwright, and Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDE, PHONE = {"width": 1100, "height": 1500}, {"width": 390, "height": 1500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--game", default="Freeway")
    arguments = parser.parse_args()
    DOCS.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "jowa.play", f"ckpt={arguments.ckpt}", f"game={arguments.game}", "planner=demo",
               "planner.width=3", "planner.horizon=3", "planner.context=4", "port=0"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        report(browser, arguments.report.resolve().as_uri())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            try:
                play(browser, address)
            finally:
                server.terminate()
        browser.close()


def report(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport=WIDE, color_scheme="light")
    page.goto(address)
    keep(page, "report.png")
    for name, heading in (("report-films.png", "Watch it play"), ("report-diagnostics.png", "Does it mean")):
        page.locator("h2", has_text=heading).evaluate("heading => heading.scrollIntoView()")
        page.evaluate("document.querySelectorAll('video').forEach(film => { film.controls = false; })")
        page.wait_for_timeout(4000)
        keep(page, name)
    phone = browser.new_page(viewport=PHONE, color_scheme="dark")
    phone.goto(address)
    keep(phone, "report-phone.png")


def play(browser: Browser, address: str) -> None:
    for name, viewport, scheme in (("play.png", WIDE, "light"), ("play-phone.png", PHONE, "dark")):
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        page.goto(address)
        page.wait_for_timeout(8000)
        keep(page, name)
        page.close()


def keep(page: Page, name: str) -> None:
    """A small PNG: 256 colours do for pages."""
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256)
    picture.save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
