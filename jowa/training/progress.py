"""The progress bar of a stage, which nobody needs to be there for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Steps taken and the last losses; from the first time that stderr can't be written to, nothing at all.

    Ctrl-C ends a `tee` behind the run before the run itself, and a broken pipe must not cost the step.
    """

    def __init__(self, stage: str, first: int, steps: int, shown: bool) -> None:
        self._bar: tqdm[None] | None = None
        if shown:
            self._guarded(lambda: setattr(self, "_bar", tqdm(total=steps, initial=first, desc=stage, unit="step")))

    def step(self) -> None:
        if (bar := self._bar) is not None:
            self._guarded(bar.update)

    def tell(self, values: dict[str, float]) -> None:
        """Show the losses among these metrics, and the speed."""
        short = {key.removeprefix("loss/"): f"{v:.3g}" for key, v in values.items() if key.startswith("loss/")}
        short["tokens/s"] = f"{values['speed/tokens_per_second']:.0f}"
        if (bar := self._bar) is not None:
            self._guarded(lambda: bar.set_postfix(short))

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError:
            if self._bar is not None:
                self._bar.disable = True
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
