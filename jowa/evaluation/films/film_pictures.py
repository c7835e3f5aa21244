"""A film's pictures: the screen, its codes, the planner's tree and Q bars, one picture a decision."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jowa.evaluation.films.film import Film, Thoughts
from jowa.games import action_names

_PAPER, _INK, _MUTED, _LINE = (20, 23, 28), (230, 232, 236), (152, 161, 175), (62, 70, 82)
_CHOSEN, _OTHER = (143, 155, 255), (85, 179, 186)
_WIDTH, _GAP, _SCALE, _SIDE = 512, 8, 3, 84
_HEADER, _CAPTION, _BAR, _TITLE = 28, 20, 20, 26
_FUTURE = _SIDE + _GAP
_STRIP = 134
"""Where the imagined frames begin, right of their futures' actions and scores."""
_ACTIONS = 18
"""For how many actions there are bars: games of other sets may have hundreds."""


class FilmPictures:
    """Draws a film decision by decision, 512 pixels wide.

    Below the screen stand the first futures that were kept as branches from the present, and Q of the legal actions;
    the action played is marked in both. What isn't known (random play plans nothing) is left out.
    """

    def __init__(self, film: Film) -> None:
        self._film = film
        self._returns = np.cumsum(film.rewards) - film.rewards
        self._names = () if film.thoughts is None else action_names(film.game)
        panes = _HEADER + _CAPTION + _SIDE * _SCALE
        self._tree_top = panes + _GAP
        self._bars_top = self._tree_top + (_TITLE + _FUTURE * _futures(film.thoughts) if _futures(film.thoughts) else 0)
        self._actions = _shown_actions(film.thoughts)
        self._columns = 2 if len(self._actions) > 6 else 1
        self._lines = -(-len(self._actions) // self._columns)
        height = self._bars_top + (_TITLE + _BAR * self._lines + _GAP if self._actions else 0)
        self.size = (_WIDTH, height + height % 2)
        self._base = self._draw_base()

    def __len__(self) -> int:
        return len(self._film.frames)

    def draw(self, step: int) -> Image.Image:
        """The picture of one decision."""
        film, picture = self._film, self._base.copy()
        pen = ImageDraw.Draw(picture)
        points = f"return {self._returns[step]:g}   agent step {step}"
        pen.text((_WIDTH - 2, 5), points.replace("-", "−"), _INK, _font(15), anchor="ra")
        top = _HEADER + _CAPTION
        for number, frames in enumerate((film.frames, film.seen)):
            if frames is not None:
                picture.paste(_grey(frames[step], _SCALE), (number * (_SIDE * _SCALE + _GAP), top))
        if film.thoughts is not None:
            self._draw_tree(picture, pen, film.thoughts, step)
            self._draw_bars(pen, film.thoughts, step)
        return picture

    def _draw_base(self) -> Image.Image:
        """What is the same in all pictures."""
        film = self._film
        picture = Image.new("RGB", self.size, _PAPER)
        pen = ImageDraw.Draw(picture)
        pen.text((2, 5), film.game, _INK, _font(15, bold=True))
        pen.text((2, _HEADER), "screen", _MUTED, _font(13))
        if film.seen is not None:
            pen.text((_SIDE * _SCALE + _GAP, _HEADER), "what its codes keep", _MUTED, _font(13))
        if _futures(film.thoughts):
            pen.text((2, self._tree_top), "futures imagined, best first", _MUTED, _font(13))
        if film.thoughts is not None:
            low, high = _bounds(film.thoughts)
            ends = f"Q of the legal actions (bars: {low:.2f} … {high:.2f})".replace("-", "−")
            pen.text((2, self._bars_top), ends, _MUTED, _font(13))
        return picture

    def _draw_tree(self, picture: Image.Image, pen: ImageDraw.ImageDraw, thoughts: Thoughts, step: int) -> None:
        """Branches from the present to each future, its imagined frames with their actions, rewards and ends."""
        alive = [row for row in range(_futures(thoughts)) if np.isfinite(thoughts.scores[step, row])]
        followed = _followed(thoughts, step, int(self._film.actions[step]))
        top = self._tree_top + _TITLE
        root = top + len(alive) * _FUTURE // 2 - _GAP // 2
        # The branch followed is drawn last, over the trunk it shares with the others.
        for row in sorted(alive, key=lambda row: row == followed):
            colour = _CHOSEN if row == followed else _LINE
            left, middle = 6, top + row * _FUTURE + _SIDE // 2
            pen.line([(left, root), (left, middle), (_STRIP - 4, middle)], colour, 2 + (row == followed))
            name = self._names[thoughts.first_actions[step, row]]
            text = _CHOSEN if row == followed else _INK
            pen.text((left + 8, middle - 4), _short(name), text, _font(13, bold=row == followed), anchor="ls")
            score = f"{thoughts.scores[step, row]:.3f}".replace("-", "−")
            pen.text((left + 8, middle + 5), score, text, _font(13), anchor="la")
            self._draw_future(picture, pen, thoughts, step, row, middle - _SIDE // 2, row == followed)
        pen.ellipse((2, root - 4, 10, root + 4), _INK)

    def _draw_future(
        self, picture: Image.Image, pen: ImageDraw.ImageDraw, thoughts: Thoughts, step: int, row: int, top: int,
        followed: bool,
    ) -> None:  # fmt: skip
        """One future as a strip: later actions and events are written into the frames they led to."""
        for ahead in range(thoughts.frames.shape[2]):
            left = _STRIP + ahead * (_SIDE + _GAP)
            picture.paste(_grey(thoughts.frames[step, row, ahead], 1), (left, top))
            if followed:
                pen.rectangle((left - 2, top - 2, left + _SIDE + 1, top + _SIDE + 1), None, _CHOSEN, 2)
            words = [_short(self._names[thoughts.actions[step, row, ahead]])] if ahead else []
            reward = thoughts.rewards[step, row, ahead]
            words += [f"{reward:+g}".replace("-", "−")] if reward else []
            ends = thoughts.continuations[step, row, ahead] == 0
            words += ["end"] if ends else []
            if words:
                text = " ".join(words)
                box = pen.textbbox((left + 3, top + 2), text, _font(11))
                pen.rectangle((left, top, box[2] + 3, box[3] + 2), _PAPER)
                pen.text((left + 3, top + 2), text, _INK, _font(11))
            if ends:
                break

    def _draw_bars(self, pen: ImageDraw.ImageDraw, thoughts: Thoughts, step: int) -> None:
        low, high = _bounds(thoughts)
        width = (_WIDTH - (self._columns - 1) * _GAP) // self._columns
        longest = width - 92 - 60
        for place, action in enumerate(self._actions):
            column, line = divmod(place, self._lines)
            left, top = column * (width + _GAP), self._bars_top + _TITLE + line * _BAR
            played = action == self._film.actions[step]
            value = float(thoughts.q[step, action])
            colour = _CHOSEN if played else _OTHER
            name = _short(self._names[action])
            pen.text((left + 86, top + 15), name, _INK if played else _MUTED, _font(13, bold=played), anchor="rs")
            end = left + 92 + max(1, round(longest * (value - low) / max(high - low, 1e-9)))
            pen.rectangle((left + 92, top + 3, end, top + _BAR - 4), colour)
            text = f"{value:.3f}".replace("-", "−")
            pen.text((left + width - 4, top + 15), text, _INK if played else _MUTED, _font(13), anchor="rs")


def _futures(thoughts: Thoughts | None) -> int:
    """How many futures there are to be seen."""
    return 0 if thoughts is None or not thoughts.frames.shape[2] else thoughts.frames.shape[1]


def _shown_actions(thoughts: Thoughts | None) -> list[int]:
    """The legal actions, those of highest mean Q where there are too many."""
    if thoughts is None:
        return []
    best = np.argsort(-thoughts.q[:, thoughts.legal].mean(0), kind="stable")[:_ACTIONS]
    return sorted(thoughts.legal[best].tolist())


def _followed(thoughts: Thoughts, step: int, action: int) -> int:
    """The best future that begins with the action played; −1 if chance played another one."""
    rows = np.flatnonzero((thoughts.first_actions[step] == action) & np.isfinite(thoughts.scores[step]))
    return int(rows[0]) if len(rows) else -1


def _bounds(thoughts: Thoughts) -> tuple[float, float]:
    """The lowest and highest Q of a legal action in the film: all its bars have one scale."""
    legal = thoughts.q[:, thoughts.legal]
    return float(legal.min()), float(legal.max())


def _short(name: str) -> str:
    """ALE's names fit a bar's margin when the word for firing is a sign."""
    return name if len(name) <= 9 else name.replace("FIRE", "+F")


def _grey(frame: NDArray[np.uint8], scale: int) -> Image.Image:
    return Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1))


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    import matplotlib  # for its fonts; drawing one's own needs no more of it

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)
