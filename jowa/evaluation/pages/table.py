"""An evaluation's scores as a plain-text table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from jowa.evaluation.pages.report import above_random
from jowa.evaluation.results.labels import label
from jowa.evaluation.results.results import Results, distinct_episodes
from jowa.evaluation.statistics.scores import Estimate


def score_table(results: Results) -> str:
    """One row a game: mean return [interval] of every mode, the data's mean, normalised scores, verdict."""
    best = results.best
    head = ["game", *(label(mode.mode).lower() for mode in results.modes), "data mean"]
    head += ["distinct", "human-norm.", "DQN-norm.", "above random"] if best else []
    rows = [head]
    for game in results.games:
        scores = [mode.game(game) for mode in results.modes]
        row = [game, *(_estimate(score.mean if score else None) for score in scores)]
        row.append(f"{results.data[game].mean:.1f}" if game in results.data else "–")
        score = best.game(game) if best else None
        if best is not None:
            verdict = {True: "yes", False: "not shown", None: "–"}[above_random(results, best, game)]
            row.append(distinct_episodes(score) if score else "–")
            row += [_short(score.human_normalised if score else None), _short(score.dqn_normalised if score else None)]
            row.append(verdict)
        rows.append(row)
    confidence = f"{100 * results.bootstrap.confidence:.0f} %"
    episodes = max((score.episodes for mode in results.modes for score in mode.games), default=0)
    note = f"Mean raw return of {episodes} episodes [{confidence} bootstrap interval]."
    if best is not None:
        note += f" Normalised scores are those {label(best.mode).lower()}."
    return "\n".join([aligned(rows), note, *(f"Note: {warning}" for warning in results.warnings)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width, a line below the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _estimate(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _short(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f}"
