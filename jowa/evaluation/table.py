"""An evaluation's scores as a plain-text table for the terminal."""

from __future__ import annotations

from jowa.evaluation.labels import LABELS
from jowa.evaluation.report import above_random
from jowa.evaluation.results import Results
from jowa.evaluation.scores import Estimate


def score_table(results: Results) -> str:
    """One row a game: mean return [interval] of every mode, the data's mean, normalised scores, verdict."""
    best = results.best
    head = ["game", *(LABELS.get(mode.mode, mode.mode).lower() for mode in results.modes), "data mean"]
    head += ["human-norm.", "DQN-norm.", "above random"] if best else []
    rows = [head]
    for game in results.games:
        scores = [mode.game(game) for mode in results.modes]
        row = [game, *(_estimate(score.mean if score else None) for score in scores)]
        row.append(f"{results.data[game].mean:.1f}" if game in results.data else "–")
        score = best.game(game) if best else None
        if best is not None:
            verdict = {True: "yes", False: "not shown", None: "–"}[above_random(results, best, game)]
            row += [_short(score.human_normalised if score else None), _short(score.dqn_normalised if score else None)]
            row.append(verdict)
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    confidence = f"{100 * results.bootstrap.confidence:.0f} %"
    episodes = max((score.episodes for mode in results.modes for score in mode.games), default=0)
    note = f"Mean raw return of {episodes} episodes [{confidence} bootstrap interval]."
    if best is not None:
        note += f" Normalised scores are those {LABELS.get(best.mode, best.mode).lower()}."
    return "\n".join([*lines, note, *(f"Note: {warning}" for warning in results.warnings)])


def _estimate(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _short(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f}"
