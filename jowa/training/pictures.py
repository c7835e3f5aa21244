"""Pictures of what the model sees: held-out sequences, their codes, the next frame predicted, and a dream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jowa.data.sequences import SequenceDataset
from jowa.errors import UserError
from jowa.files import replacing
from jowa.planning.strips import Strip, dream_strips
from jowa.planning.tree_dream import TreeDream
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner
from jowa.training.run import Hook
from jowa.training.warning import reason_of, warn

FOLDER = "pictures"
MAXIMUM_GAMES = 6
LABEL_WIDTH = 96
GAP = 4


def picture_hook(learner: Learner, held_out: SequenceDataset, run: Path, distribution: Distribution) -> Hook | None:
    """A hook with which rank 0 draws strips into <run>/pictures/<stage>-<step>.png; None without held-out sequences."""
    indices = representative_sequences(held_out)
    if not len(indices):
        return None

    def draw(stage: str, step: int) -> dict[str, float]:
        if distribution.is_main:
            learner.eval()
            strips = dream_strips(learner.tokenizer, TreeDream(learner.model), held_out.batch(indices))
            try:
                (run / FOLDER).mkdir(exist_ok=True)
                with replacing(run / FOLDER / f"{stage}-{step:08d}.png") as temporary:
                    sheet(strips).save(temporary, format="PNG")
            except (OSError, UserError) as error:
                warn(f"the picture of step {step} of {stage} can't be saved ({reason_of(error)}); training goes on")
        return {}

    return draw


def representative_sequences(data: SequenceDataset) -> NDArray[np.int64]:
    """One sequence from the middle of each of the first few games: the first there that has no padding."""
    chosen, first = [], 0
    for count in data.counts.values():
        for index in range(first + count // 2, first + count):
            if data.batch(np.array([index])).valid.all():
                chosen.append(index)
                break
        first += count
    return np.array(chosen[:MAXIMUM_GAMES], dtype=np.int64)


def sheet(strips: list[Strip]) -> Image.Image:
    """One labelled picture: the rows of each strip above each other."""
    length, height, width = strips[0].original.shape
    cell = height + GAP
    group = len(strips[0].rows) * cell + 3 * GAP
    picture = Image.new("L", (LABEL_WIDTH + length * (width + GAP), len(strips) * group), 255)
    pen = ImageDraw.Draw(picture)
    for number, strip in enumerate(strips):
        for row, (name, frames) in enumerate(strip.rows):
            top = number * group + row * cell
            pen.text((4, top + height // 2 - 14), strip.game if row == 0 else "", fill=0)
            pen.text((4, top + height // 2), name, fill=0)
            for t, frame in enumerate(frames):
                left = LABEL_WIDTH + t * (width + GAP)
                picture.paste(Image.fromarray(frame), (left, top))
                if name == "dream" and t < strip.context:
                    pen.text((left + 3, top + 2), "given", fill=255)
    return picture
