"""What is done after a training step: looking at it, saving it, and stopping when it has to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import NamedTuple

from jowa.data.sequences import SequenceDataset
from jowa.errors import Interrupted, UserError
from jowa.files import write_json
from jowa.training.checkpoint import Place
from jowa.training.finite import Failure, FiniteGuard
from jowa.training.imagination import Imagination
from jowa.training.interruption import Interruption
from jowa.training.learner import Learner
from jowa.training.meter import Meter
from jowa.training.optimization import Optimizers
from jowa.training.parts import step_seed
from jowa.training.progress import Progress
from jowa.training.run import Hook, Regularly, Run
from jowa.training.saver import CheckpointSaver, Judge


class Trained(NamedTuple):
    """What a stage's steps change, and what they are watched by."""

    learner: Learner
    optimizers: Optimizers
    imagination: Imagination
    guard: FiniteGuard
    meter: Meter
    data: SequenceDataset


class AfterStep:
    """Logs, saves, calls hooks and heeds signals after the steps of one stage, while it is entered.

    Attributes:
        interruption: to be told of each step's beginning.
    """

    def __init__(
        self, run: Run, name: str, steps: range, trained: Trained, hooks: Sequence[Regularly], judge: Judge
    ) -> None:
        """steps: those to be taken of the stage `name`."""
        self.run, self.name, self.steps = run, name, steps
        self.trained, self.hooks, self.judge = trained, hooks, judge
        self._held = ExitStack()

    def __enter__(self) -> AfterStep:
        run, steps = self.run, self.steps
        saver = CheckpointSaver(run.folder, run.facts, run.config.keep_checkpoints, run.distribution)
        progress = Progress(self.name, steps.start, steps.stop, run.distribution.is_main)
        self.saver = self._held.enter_context(saver)
        self.interruption = self._held.enter_context(Interruption(run.distribution))
        self.progress = self._held.enter_context(progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def look(self, done: int) -> None:
        """Call the hooks that are due after `done` of the stage's steps."""
        place = Place(self.name, done)
        shown = call_hooks(self.run, place, due_hooks(self.hooks, done, self.steps.stop), self.trained)
        self.saver.judge(place, shown, self.judge)

    def step(self, done: int) -> None:
        """All that is to be done after `done` of the stage's steps.

        Raises:
            UserError: a loss or a gradient isn't finite; the weights are as they were before.
            Interrupted: a signal asked to stop; the step is done and a checkpoint of it saved. What else was due after
                that step is left out, since schedulers don't wait long.
        """
        config, last = self.run.config, done == self.steps.stop
        stopped_by = self.interruption.end_step()
        logs, saves = (last or done % every == 0 for every in (config.log_every, config.checkpoint_every))
        looks = bool(due_hooks(self.hooks, done, self.steps.stop))
        # Reading the device's verdict costs a wait, on a CPU nothing.
        if logs or saves or looks or stopped_by or self.run.distribution.device.type == "cpu":
            stop_unless_finite(self.run, self.name, self.trained.guard.failure(), self.trained.data)
        if logs or stopped_by:
            self._log(done)
        self.progress.step()
        # Before the hooks, which may take longer than whoever sends signals waits, and may choose this one as best.
        if saves or looks or stopped_by:
            self._save(done, required=last or bool(stopped_by))
        if not stopped_by:
            self.look(done)
            stopped_by = self.interruption.agree() if last else None
        if stopped_by:
            raise Interrupted(stopped_by, self.run.folder, f"step {done} of {self.name}")

    def _log(self, done: int) -> None:
        values = self.trained.meter.read() | self.trained.imagination.read()
        self.run.log.write(self.name, done, values)
        self.progress.tell(values)

    def _save(self, done: int, required: bool) -> None:
        save = self.saver.save_now if required else self.saver.save
        learner, optimizers, imagination = self.trained[:3]
        save(Place(self.name, done), learner, optimizers, imagination.state())


def due_hooks(hooks: Sequence[Regularly], done: int, steps: int) -> list[Hook]:
    """Those to be called after `done` of a stage's steps."""
    return [hook for hook, every in hooks if done == steps or done % every == 0]


def call_hooks(run: Run, place: Place, hooks: Sequence[Hook], trained: Trained) -> dict[str, float]:
    """Call the hooks that are due, log what they return, and return it all."""
    shown: dict[str, float] = {}
    for hook in hooks:
        values = hook(place.stage, place.step)
        if values:
            run.log.write(place.stage, place.step, values)
        shown |= values
        trained.learner.train()
        trained.meter.restart_clock()
    return shown


def stop_unless_finite(run: Run, name: str, failure: Failure | None, data: SequenceDataset) -> None:
    """Raise UserError for a step that wasn't finite, after writing down where its sequences lie."""
    if failure is None:
        return
    path = run.folder / f"not-finite-{name}-{failure.step + 1:08d}.json"
    if run.distribution.is_main:
        batch = data.order(step_seed(run.seed, name, 0)).batch(failure.step, run.config.batch_size)
        facts = {"stage": name, "step": failure.step, "seed": run.seed, "not_finite": failure.names}
        write_json(path, facts | {"sequences": data.coordinates(batch)})
    raise UserError(
        f"Training stopped in step {failure.step + 1} of {name}: {', '.join(failure.names)} not finite. No weight was "
        f"changed by it; {path} says which sequences the step had. Look at them, or go on from the last checkpoint by "
        f"resume={run.folder} and a lower {name}.learning_rate, or training.precision=fp32."
    )
