"""The report's part about how far ahead the world model can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jowa.evaluation.diagnostics.horizons import Foresight, GameHorizons, HorizonScore
from jowa.evaluation.pages import page
from jowa.evaluation.pages.diagnostic_plots import Line, over_horizons
from jowa.evaluation.statistics.scores import Estimate

Pick = Callable[[Foresight], Estimate | None]


def horizons(games: Sequence[GameHorizons]) -> str:
    """Dreams along recorded actions, step by step."""
    if not games:
        return ""
    first = games[0]
    explanation = (
        f"The model is given {_screens(first.context)} of a recorded episode and then only the actions that were "
        f"played: from there on it <b>dreams</b>. Beside it the same screens predicted <b>one step ahead</b>, every "
        f"screen before being the true one, and <b>copying</b> the last screen given. Good is a dream that stays above "
        f"copying and close to one step ahead. {_verdict(first)}"
    )
    more = [
        page.details(
            f"{game.game} ({game.sequences:,} sequences)",
            page.grid(_figures(game)) + _table(game) + _left_out(game),
        )
        for game in games[1:]
    ]
    note = (
        '<p class="note"><b>Changed</b>: codes that differ from the last screen given, where copying is never right; '
        "one step ahead may know them from the screen before. F1 of rewards is the mean over their signs as far as "
        "they occur; a dash: none did. Intervals draw the sequences anew; neighbouring sequences of one episode are "
        "alike, so they are rather too narrow.</p>"
    )
    return page.section(
        "How far ahead does it see?",
        explanation,
        page.legend([("dream", "planning"), ("one step ahead", "greedy"), ("copying", "random")]),
        page.grid(_figures(first)),
        _table(first),
        _left_out(first),
        note,
        *more,
    )


def _screens(context: int) -> str:
    return "one real screen" if context == 1 else f"{context} real screens"


def _verdict(game: GameHorizons) -> str:
    """What the numbers say, in a sentence or two."""
    above = [
        score.agent_steps
        for score in game.scores
        if score.dream.accuracy and score.copy and score.dream.accuracy.value > score.copy.value
    ]
    counted = [score.agent_steps for score in game.scores if score.frames]
    if not counted:
        return ""
    if not above:
        codes = "Here the dream gets no more codes right than copying does, at any distance"
    elif above == counted:
        codes = f"Here the dream gets more codes right than copying at every distance up to {counted[-1]} agent steps"
    else:
        codes = f"Here the dream gets more codes right than copying {_listed(above)} ahead, not elsewhere"
    rewards = [score.dream.reward_macro_f1 for score in game.scores if score.dream.reward_macro_f1]
    if not rewards:
        return f"{codes}; no reward occurred in these sequences."
    if not any(one.value for one in rewards):
        return f"{codes}; not one reward was foreseen."
    return f"{codes}."


def _listed(steps: Sequence[int]) -> str:
    return f"{', '.join(map(str, steps))} agent step{'s' if steps != [1] else ''}"


def _figures(game: GameHorizons) -> list[str]:
    """A figure a measure, of those that could be measured."""
    measures: list[tuple[str, str, Pick, bool]] = [
        ("All codes", "share predicted right", lambda one: one.accuracy, True),
        ("Changed codes", "share predicted right where the screen changed", lambda one: one.accuracy_on_changed, False),
        ("Rewards", "F1 of the reward's sign", lambda one: one.reward_macro_f1, False),
        ("Ends", "F1 of the episode's end", lambda one: one.termination_f1, False),
    ]
    figures = []
    for title, what, pick, copied in measures:
        dream = [pick(score.dream) for score in game.scores]
        lines = [Line("random", [score.copy for score in game.scores], dashed=True)] if copied else []
        lines += [Line("greedy", [pick(score.one_step) for score in game.scores]), Line("planning", dream)]
        if any(one is not None for one in dream):
            steps = [score.agent_steps for score in game.scores]
            description = f"{game.game}: {what}, by agent steps ahead"
            drawing = over_horizons(f"horizon-{game.game}-{title}", steps, lines, description, not copied)
            figures.append(page.figure(title, drawing, what))
    return figures


def _occurred(game: GameHorizons) -> tuple[bool, bool]:
    """Whether there was any reward, and any end, at the steps dreamed."""
    return any(score.rewards for score in game.scores), any(score.ends for score in game.scores)


def _left_out(game: GameHorizons) -> str:
    """Says why the table has no column of rewards or ends."""
    absent = [what for what, some in zip(("reward", "end"), _occurred(game), strict=True) if not some]
    if not absent:
        return ""
    these = "this sequence" if game.sequences == 1 else f"these {game.sequences:,} sequences"
    return (
        f'<p class="note">No {" and no ".join(absent)} occurred at the steps dreamed in {these}, so '
        "nothing can be said about how far ahead they are foreseen.</p>"
    )


def _table(game: GameHorizons) -> str:
    """Columns of what never occurred are left out."""
    head = ["Agent steps ahead", "Copying", "Dream", "One step", "Changed: dream", "Changed: one step"]
    rewards, ends = _occurred(game)
    head += ["Reward F1: dream", "Reward F1: one step"] if rewards else []
    head += ["End F1: dream", "End F1: one step"] if ends else []
    return page.table(head, [_row(score, rewards, ends) for score in game.scores])


def _row(score: HorizonScore, rewards: bool, ends: bool) -> list[str]:
    counts = f"screens {score.frames:,}, rewards {score.rewards:,}, ends {score.ends:,}"
    both = (score.dream, score.one_step)
    return [
        page.cell(f"{score.agent_steps}", counts),
        _share(score.copy),
        *(_share(one.accuracy) for one in both),
        *(_share(one.accuracy_on_changed) for one in both),
        *(_f1(one.reward_macro_f1) for one in both if rewards),
        *(_f1(one.termination_f1) for one in both if ends),
    ]


def _share(one: Estimate | None) -> str:
    if one is None:
        return "–"
    return page.cell(page.share(one.value), f"{100 * one.low:.1f} … {100 * one.high:.1f}")


def _f1(one: Estimate | None) -> str:
    return "–" if one is None else page.cell(f"{one.value:.2f}", f"{one.low:.2f} … {one.high:.2f}")
