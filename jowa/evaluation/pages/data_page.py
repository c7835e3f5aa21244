"""The page about recorded data: one HTML file that shows what a store holds and where it came from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

import jowa
from jowa.data.overview import GameOverview, facts, is_packaged_rom, overview
from jowa.data.parts import Part
from jowa.data.store import FRAME_SHAPE, EpisodeStore
from jowa.evaluation.pages import page
from jowa.evaluation.pages.data_plots import ReturnsOverTime, action_bars, lengths_figure, returns_figure
from jowa.games import GAMES, action_names, legal_mask

PICTURES = 8
"""Frames shown of an episode."""
_SPANS = 40
"""Places on a plot's axis, at most, where there are no checkpoints."""
_RAW_FRAME = FRAME_SHAPE[0] * FRAME_SHAPE[1]


def render(store: EpisodeStore) -> str:
    """The page's HTML; a progress bar counts the games."""
    overviews = [overview(store, game) for game in store.games]
    games = [_game(store, one) for one in tqdm(overviews, desc="drawing", unit="game", leave=False)]
    title = f"{store.folder.resolve().name}: recorded data"
    return page.page(title, [_header(store), _cards(overviews), _table(overviews), *games])


def _header(store: EpisodeStore) -> str:
    return (
        f"<header><h1>{escape(store.folder.resolve().name)}</h1>"
        f'<p class="note">What the episode store <code>{escape(str(store.folder.resolve()))}</code> holds, by '
        f"<code>python -m jowa.data.inspect</code> of jowa {escape(jowa.__version__)}.</p></header>"
    )


def _cards(overviews: Sequence[GameOverview]) -> str:
    transitions = sum(one.transitions for one in overviews)
    size = sum(one.bytes for one in overviews)
    episodes = sum(one.episodes for one in overviews)
    hours = f": {transitions * 4 / 60 / 3600:,.1f} hours at the games' own speed"
    speed = hours if all(one.game in GAMES for one in overviews) else ""
    smaller = f"{transitions * _RAW_FRAME / size:.0f} times less than the bare pixels"
    cards = [
        page.card("Games", f"{len(overviews)}", f"in {sum(one.parts for one in overviews):,} parts"),
        page.card("Episodes", f"{episodes:,}", f"of {transitions / episodes:,.0f} agent steps on average"),
        page.card("Transitions", f"{transitions:,}", f"agent steps{speed}"),
        page.card("On disk", f"{size / 1e6:,.1f} MB", smaller),
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _table(overviews: Sequence[GameOverview]) -> str:
    explanation = (
        "<b>Returns</b> are sums of an episode's rewards as they are stored. <b>Sticky</b>: whether the emulator now "
        "and then repeated the last action against the agent's choice. A transition is one agent step (four frames of "
        "the emulator in Atari games), of which one 84×84 picture is kept."
    )
    head = ["Game", "Parts", "Episodes", "Transitions", "MB", "Bytes a frame", "Mean return", "Sticky", "Source"]
    rows = [
        [
            escape(one.game), f"{one.parts:,}", f"{one.episodes:,}", f"{one.transitions:,}", f"{one.bytes / 1e6:,.1f}",
            f"{one.bytes_per_frame:.0f}",
            page.cell(page.number(one.returns.mean()),
                      f"{_points(one.returns.min())} … {_points(one.returns.max())}"),
            one.sticky, escape(", ".join(one.sources)),
        ]
        for one in overviews
    ]  # fmt: skip
    return page.section("All games", explanation, page.table(head, rows))


def _game(store: EpisodeStore, one: GameOverview) -> str:
    game, table = one.game, store.tables[one.game]
    cut = int((~table.terminated).sum())
    end = f"{cut:,} of them stop before the game ended" if cut else "all of them end with the game"
    explanation = (
        f"{one.transitions:,} agent steps in {one.episodes:,} episode{'s' if one.episodes > 1 else ''}; {end}."
    )
    figures = [_returns(store, game), _lengths(store, game), _actions(store, game)]
    return page.section(
        game, explanation, page.grid(figures), *_pictures(store, game), _provenance(store, one), _parts(store, game)
    )


def _returns(store: EpisodeStore, game: str) -> str:
    returns = returns_over_time(store, game)
    if returns.axis == "episode" and len(returns.places) == len(store.tables[game]):
        text = "Every episode's, in the order of the store."
    else:
        what = (
            "checkpoint, all runs together" if returns.axis == "checkpoint" else "span of episodes, as they are stored"
        )
        text = f"By {what}: the mean, and between which bounds eight tenths of the episodes lie."
    return page.figure("Returns", returns_figure(game, returns), text)


def _lengths(store: EpisodeStore, game: str) -> str:
    lengths = store.tables[game].lengths
    shortest, longest = int(lengths.min()), int(lengths.max())
    span = f"{shortest:,} to {longest:,} agent steps, {lengths.mean():,.0f} on average"
    text = f"Number of episodes by length: {span if shortest < longest else f'{shortest:,} agent steps each'}."
    return page.figure("Lengths", lengths_figure(game, lengths), text)


def returns_over_time(store: EpisodeStore, game: str) -> ReturnsOverTime:
    """Returns by checkpoint where all episodes have one, else by episode number, in spans when there are many."""
    table = store.tables[game]
    checkpoints = [part.provenance.get("checkpoint") for part in store.parts(game)]
    if all(isinstance(checkpoint, int) for checkpoint in checkpoints):
        axis, place = "checkpoint", np.array(checkpoints)[table.parts]
    else:
        span = -(-len(table) // _SPANS)
        axis, place = "episode", np.arange(len(table)) // span * span + (span - 1) / 2
    places = np.unique(place)
    low, middle, high = [], [], []
    for one in places:
        here = table.returns[place == one]
        low.append(np.quantile(here, 0.1))
        middle.append(here.mean())
        high.append(np.quantile(here, 0.9))
    return ReturnsOverTime(axis, places.astype(np.float64), np.array(low), np.array(middle), np.array(high))


def action_shares(store: EpisodeStore, game: str) -> dict[str, float]:
    """How often each action was taken, by name: all that are legal, and illegal ones if they occur."""
    # Part by part, mapped from disk: a game may have more rows than memory should hold.
    names = action_names(game)
    counts = np.zeros(len(names), np.int64)
    for part in store.parts(game):
        counts += np.bincount(part.column("actions"), minlength=len(names))
    shown = np.flatnonzero((counts > 0) | legal_mask(game))
    return {names[number]: counts[number] / counts.sum() for number in shown.tolist()}


def _actions(store: EpisodeStore, game: str) -> str:
    signs = [np.sign(part.column("rewards")).astype(np.int8) for part in store.parts(game)]
    above, below = (sum(int((one == sign).sum()) for one in signs) / store.transitions(game) for sign in (1, -1))
    text = f"Rewards are above zero at {page.share(above)} of the steps and below at {page.share(below)}."
    return page.figure("Actions", action_bars(game, action_shares(store, game)), text)


def _pictures(store: EpisodeStore, game: str) -> list[str]:
    """Rows of pictures: of the episodes with the lowest, the median and the highest return."""
    table = store.tables[game]
    order = np.argsort(table.returns, kind="stable")
    chosen = {int(order[0]): "lowest", int(order[len(order) // 2]): "median", int(order[-1]): "highest"}
    names = {episode: name for episode, name in chosen.items() if len(chosen) == 3}
    rows = []
    for episode in chosen:
        steps = np.linspace(0, table.lengths[episode] - 1, PICTURES).round().astype(np.int64)
        frames = store.read_frames(game, table.starts[episode] + steps)
        which = f" ({names[episode]} return)" if episode in names else ""
        end = "the game's end" if table.terminated[episode] else "a cut"
        caption = (
            f"Episode {episode}{which}: {_points(table.returns[episode])} points in {table.lengths[episode]:,} "
            f"agent steps, from the first to {end}"
        )
        picture = page.image(contact_sheet(frames), f"{game}, episode {episode}")
        rows.append(page.captioned(f'<div class="wide">{picture}</div>', caption))
    return rows


def contact_sheet(frames: NDArray[np.uint8], scale: int = 2, gap: int = 8) -> bytes:
    """A PNG of frames (T, 84, 84) uint8 side by side, clear in between."""
    height, width = (side * scale for side in frames.shape[1:])
    canvas = np.zeros((height, len(frames) * (width + gap) - gap, 2), np.uint8)
    for number, frame in enumerate(frames):
        left = number * (width + gap)
        canvas[:, left : left + width, 0] = frame.repeat(scale, 0).repeat(scale, 1)
        canvas[:, left : left + width, 1] = 255
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _provenance(store: EpisodeStore, one: GameOverview) -> str:
    parts = store.parts(one.game)
    keys = sorted({key for part in parts for key in part.provenance})
    items = []
    for key in keys:
        values = [_said(value) for value in facts(parts, key)]
        shown = ", ".join(values[:12]) + (f" … {len(values)} different ones" if len(values) > 12 else "")
        if key == "rom_md5" and len(one.roms) == 1:
            shown += ", as in ale-py" if is_packaged_rom(one.game, one.roms[0]) else ", not ale-py's"
        items.append((key.replace("_", " "), shown))
    items.append(("jowa version", ", ".join(sorted({part.manifest.jowa_version for part in parts}))))
    items.append(("fingerprint", store.fingerprint(one.game)))
    return page.details("Provenance", page.definitions(items))


def _points(value: float) -> str:
    """A return; most games count in whole points."""
    return page.number(value) if value % 1 else f"{value:,.0f}".replace("-", "−")


def _said(value: object) -> str:
    words = {None: "unknown", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {_said(inner)}" for key, inner in value.items())
    return str(value)


def _parts(store: EpisodeStore, game: str) -> str:
    head = ["Part", "Run", "Checkpoint", "Episodes", "Transitions", "MB", "Mean return"]
    return page.details("Parts", page.table(head, [_part_row(part) for part in store.parts(game)]))


def _part_row(part: Part) -> list[str]:
    run, checkpoint = (part.provenance.get(key) for key in ("run", "checkpoint"))
    return [
        escape(part.name), "–" if run is None else escape(str(run)), "–" if checkpoint is None else f"{checkpoint}",
        f"{part.episodes:,}", f"{part.transitions:,}", f"{part.manifest.bytes / 1e6:,.1f}",
        page.number(float(part.table.returns.mean())),
    ]  # fmt: skip
