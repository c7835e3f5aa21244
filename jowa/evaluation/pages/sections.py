"""The report's parts beside the scores: films, evidence about the world model, strips, conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jowa.evaluation.diagnostics.world_model import ClassScore, CodeScore, WorldModelEvidence
from jowa.evaluation.films.film import DECISIONS_PER_SECOND, Film
from jowa.evaluation.films.film_encoding import encode_film
from jowa.evaluation.pages import page
from jowa.evaluation.results.results import ModeResult, Results, plain
from jowa.evaluation.results.tuning_notes import how_tuned
from jowa.games import GAMES
from jowa.planning.strips import Strip, strip_png


def films(shots: Sequence[Film]) -> str:
    """The games being played."""
    if not shots:
        return ""
    explanation = "Each game's first episode from its beginning, in the 84×84 grey pixels the model is given."
    if any(film.game in GAMES for film in shots):
        whose = "At the game's own speed" if all(film.game in GAMES for film in shots) else "Atari games at their speed"
        explanation += f" {whose}: 15 agent steps, 60 frames a second."
    if any(film.seen is not None for film in shots):
        explanation += " Left the screen, right what is left of it in the codes that the model really sees."
    figures = "".join(page.captioned(_player(film), _caption(film)) for film in shots)
    return page.section("Watch it play", explanation, f'<div class="films">{figures}</div>', _thoughts(shots))


def _thoughts(shots: Sequence[Film]) -> str:
    """What is shown of the planner in the films."""
    thoughts = [film.thoughts for film in shots if film.thoughts is not None]
    if not thoughts:
        return ""
    text = (
        "The bars are Q of the legal actions, what each is expected to bring, on one scale in the whole film; the "
        "action played is marked."
    )
    if any(one.frames.size for one in thoughts):
        text = (
            "Branching off from the present: <b>futures</b> that the planner imagined, each with its first action, its "
            "value, and its screens with later actions, predicted rewards and ends. The one that was followed is "
            f"marked; values that nearly agree may count as equal, and Q decides. {text}"
        )
    return f'<p class="note">{text}</p>'


def _player(film: Film) -> str:
    clip = encode_film(film)
    if not clip.media_type.startswith("video/"):
        return page.image(clip.data, f"{film.game} being played", clip.media_type)
    address = page.data_url(clip.media_type, clip.data)
    # Text in it would suffer from the sharp pixels that suit the screens.
    style = "image-rendering: auto"
    return f'<video controls loop muted playsinline autoplay style="{style}" src="{address}"></video>'


def _caption(film: Film) -> str:
    steps = len(film.actions)
    played = f" ({steps / DECISIONS_PER_SECOND:.0f} s)" if film.game in GAMES else ""
    points = page.number(float(film.rewards.sum()))
    return f"{film.game}, {film.mode}: {steps:,} agent steps{played}, {points} points in them"


def world_model(evidence: Sequence[WorldModelEvidence], held_out: bool = True) -> str:
    """What the model predicts of recorded episodes: those held out from training, or all if that isn't known."""
    if not evidence:
        return ""
    codes = page.table(
        ["Codes right", "Copying", "Next code", "Imagined", "Changing cells", "Next code there", "Imagined there"],
        [_code_row(one) for one in evidence],
    )
    events = page.table(
        ["Rewards and ends", "Reward F1", "Positive reward F1", "Negative reward F1", "Termination F1"],
        [_event_row(one) for one in evidence],
    )
    explanation = (
        f"On <b>{'held-out' if held_out else 'recorded'} episodes</b>, one agent step ahead. "
        "A screen is a grid of codes; <b>copying</b> "
        "repeats the last screen's code in each cell, which is right wherever nothing moves. <b>Next code</b>: "
        "each code is predicted from the true codes before it, its own screen's included. <b>Imagined</b>: "
        "all codes of the next screen are decoded one after the other from the model's own choices, as planning "
        "does, on a sample. The right half counts only the <b>cells that change</b>, where copying is never right."
    )
    more = (
        '<p class="note">Whether the model knows at an action that a reward or the end follows. <b>Precision</b> (P) '
        "is the share of announced events that happened, <b>recall</b> (R) the share of events that were announced, "
        "<b>F1</b> their harmonic mean; n is how often it happened. The reward's F1 is the mean over positive and "
        "negative rewards, as far as they occur. A dash: it never occurred in these steps.</p>"
    )
    return page.section("Does it know the world?", explanation, codes, more, events)


def _code_row(evidence: WorldModelEvidence) -> list[str]:
    next_code, imagined = evidence.next_code, evidence.imagined
    return [
        page.cell(evidence.game, f"{evidence.steps:,} agent steps"),
        page.cell(page.share(next_code.copy), _frames(next_code)),
        page.cell(page.share(next_code.accuracy), _frames(next_code)),
        page.cell(page.share(imagined.accuracy), f"copying {page.share(imagined.copy)}, {_frames(imagined)}"),
        page.cell(page.share(next_code.changed), "of all cells"),
        page.cell(page.share(next_code.accuracy_on_changed), "copying 0 %"),
        page.cell(page.share(imagined.accuracy_on_changed), "copying 0 %"),
    ]


def _frames(score: CodeScore) -> str:
    return f"{score.frames:,} screens"


def _event_row(evidence: WorldModelEvidence) -> list[str]:
    negative, _, positive = evidence.reward
    macro = "–" if evidence.reward_macro_f1 is None else f"{evidence.reward_macro_f1:.2f}"
    return [
        page.cell(evidence.game, f"{evidence.steps:,} agent steps"),
        page.cell(macro, "mean over signs"),
        _class_cell(positive),
        _class_cell(negative),
        _class_cell(evidence.termination),
    ]


def _class_cell(score: ClassScore) -> str:
    def two(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    return page.cell(two(score.f1), f"P {two(score.precision)}, R {two(score.recall)}, n = {score.positives:,}")


def strips(drawn: Sequence[Strip], pictures: Sequence[Path]) -> str:
    """Real, reconstructed and dreamed frames, and the pictures the training run left."""
    if not drawn and not pictures:
        return ""
    explanation = (
        "A column is an agent step. <b>Screen</b>: what happened, in a recorded episode. <b>Codes</b>: what the "
        "tokenizer keeps of it. <b>One step</b>: each screen predicted from the true ones before it and the action "
        "(the first is given). <b>Dream</b>: before the gap the given screens; after it the model's own continuation, "
        "told nothing but the actions that were played. Good rows can't be told from <b>codes</b>. Sequences were "
        "picked because something happens in them (a reward, much movement), not by how well they are foreseen."
    )
    figures = [_strip_figure(strip) for strip in drawn]
    if pictures:
        images = "".join(page.captioned(page.image(path.read_bytes(), path.stem), path.stem) for path in pictures)
        figures.append(page.details(f"Pictures from training ({len(pictures)})", f'<div class="wide">{images}</div>'))
    return page.section("What it sees and dreams", explanation, *figures)


def _strip_figure(strip: Strip) -> str:
    picture = page.image(strip_png(strip), f"{strip.game}: screens, codes, next screens and dream")
    names = "".join(f"<span>{name.capitalize()}</span>" for name, _ in strip.rows)
    named = f'<div class="names" style="grid-template-rows: repeat({len(strip.rows)}, 1fr)">{names}</div>'
    rows = f'<div class="rows">{named}<div class="wide">{picture}</div></div>'
    return f"<figure><h3>{escape(strip.game)}</h3>{rows}</figure>"


def conditions(results: Results) -> str:
    """Under which rules, with which software and settings."""
    explanation = (
        f"An <b>agent step</b> is one decision: the action is held for {_held(results)}, lengths of episodes in agent "
        "steps. The same seeds are played in every way, and chance in an episode depends on its seed alone."
    )
    if results.tuned:
        explanation += f" {how_tuned(results.tuning)}"
    modes = [
        (f"{mode.mode}", f"{_settings(mode.planner) or 'no settings'}; {_pace(mode)}")
        for mode in results.modes
    ]  # fmt: skip
    rules = [("Command", results.command), ("First seed", str(results.seed)), *_pairs(results.protocol)]
    return page.section(
        "How it was measured",
        explanation,
        page.details("Rules and seeds", page.definitions(rules)),
        page.details("Ways of playing", page.definitions(modes)),
        page.details("Software", page.definitions(_pairs(results.versions))),
        page.details("ROMs (MD5)", page.definitions(_pairs(results.roms))) if results.roms else "",
        page.details("Environments", page.definitions(_pairs(results.environments))) if results.environments else "",
        page.details("Configuration", f"<pre>{escape(json.dumps(plain(results.config), indent=2))}</pre>"),
    )


def _pace(mode: ModeResult) -> str:
    """How fast it was played, as far as this call of the command played it."""
    steps = sum(episode.agent_steps for episode in mode.episodes)
    earlier = f"; {steps - mode.decisions:,} had been made before an interruption" if steps > mode.decisions else ""
    if not mode.decisions:
        return f"all {steps:,} decisions had been made before an interruption"
    pace = f"{mode.decisions_per_second:,.0f} decisions/s, {mode.decisions:,} decisions in {mode.seconds:,.0f} s"
    return pace + earlier


def _held(results: Results) -> str:
    """For how long an action is, and what caps are counted in."""
    frames = f"{results.protocol.get('frame_skip', 4)} <b>frames</b> of the emulator, which shows 60 a second"
    steps = "as many <b>environment steps</b> as the environment's frame skip says"
    atari = [game in GAMES for game in results.games]
    if all(atari):
        return f"{frames}. Caps on an episode's length are in frames"
    if not any(atari):
        return f"{steps}. Caps on an episode's length are in environment steps"
    return f"{frames}, or, in games that aren't Atari's, {steps}. Caps on an episode's length are in these"


def _settings(values: Mapping[str, Any]) -> str:
    shared = ", ".join(f"{key} {value}" for key, value in values.items() if not isinstance(value, Mapping))
    games = [f"{game}: {_settings(own)}" for game, own in values.get("games", {}).items()]
    return "; ".join([shared, *games])


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(key).replace("_", " "), str(value)) for key, value in values.items()]
