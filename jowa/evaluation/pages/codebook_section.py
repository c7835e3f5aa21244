"""The report's part about the codes that the tokenizer uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jowa.evaluation.diagnostics.codebook import CodebookUse
from jowa.evaluation.pages import page
from jowa.evaluation.pages.diagnostic_plots import usage_strip


def codebook(games: Sequence[CodebookUse]) -> str:
    """Which codes occur, and how often."""
    if not games:
        return ""
    explanation = (
        "A screen reaches the model as codes out of a vocabulary, and what no code says it can't know. "
        "<b>Perplexity</b> is how many codes, used equally often, would be as varied; a high one, and no single code "
        "that is everywhere, is good. Few codes in use mean that many different screens look the same to the model."
    )
    rows = [
        [
            page.cell(one.game, f"{one.frames:,} screens"),
            page.cell(f"{one.used:,}", f"of {one.vocabulary:,}, {page.share(one.used / one.vocabulary)}"),
            page.cell(f"{one.perplexity:,.1f}"),
            page.cell(page.share(one.commonest)),
        ]
        for one in games
    ]
    order = np.argsort(-np.asarray(games[0].counts), kind="stable").tolist()
    strips = "".join(
        page.captioned(
            f'<div style="image-rendering: pixelated">{_strip(one, order)}</div>', f"{one.game}: {one.used:,} codes"
        )
        for one in games
    )
    note = (
        '<p class="note">Each cell is a code, in the same place in every strip, the commonest of all games first, row '
        "by row: the fuller its colour, the oftener it occurs (logarithmically). A pale cell never occurs.</p>"
    )
    return page.section(
        "How much of the codebook is used?",
        explanation,
        page.table(["Game", "Codes used", "Perplexity", "Commonest code"], rows),
        note,
        f'<div class="grid">{strips}</div>',
    )


def _strip(one: CodebookUse, order: Sequence[int]) -> str:
    image = page.image(usage_strip(one.counts, order), f"{one.game}: how often each code occurs")
    return image.replace("<img ", '<img style="width: 100%; display: block" ', 1)
