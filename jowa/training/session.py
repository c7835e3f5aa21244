"""A training session: the learner, its data and its run folder, through all stages in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import jowa
from jowa.data.order import check_batch_size
from jowa.data.selection import Selection
from jowa.data.sequences import SequenceDataset, check_actions, check_rewards
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.files import full_disk
from jowa.games import legal_mask, num_tasks, reference, task_id
from jowa.models.agent_files import read_description
from jowa.models.perceptual import load_lpips
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import ModelConfig, WorldActionModel, check_game_fits
from jowa.resuming import first_difference, flatten
from jowa.training.adaptation import AdaptationConfig, adapt
from jowa.training.checkpoint import Place, check_intact, list_checkpoints, restore
from jowa.training.config import DataConfig, ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.distribution import Distribution, check_agreement
from jowa.training.imagination_config import NEVER, ImaginationConfig
from jowa.training.learner import Learner
from jowa.training.loop import train_stage
from jowa.training.metrics import MetricsLog, check_logger
from jowa.training.pictures import picture_hook
from jowa.training.run import Regularly, Run
from jowa.training.run_folder import alone_in, looked_at, prepare_run_folder, set_aside_undone
from jowa.training.saver import Judge
from jowa.training.stage_data import open_selection, sequences, stage_data
from jowa.training.validation import HELD_OUT, validation_hook

SCORE = "evaluation/score"
"""What playing while training is summed up in: the higher, the better."""


@dataclass(frozen=True)
class Settings:
    """What pretraining and finetuning have in common.

    config: the entry point's whole configuration. evaluate: makes the hook that plays while training, whose `SCORE`
    then says which checkpoint is a stage's best. finetune: what of the model is trained. games_before: what the agent
    was trained on until now.
    """

    out: str
    resume: str
    seed: int
    data: DataConfig
    objective: ObjectiveConfig
    training: TrainingConfig
    stages: Mapping[str, StageConfig]
    config: Any
    evaluate: Callable[[Learner, Distribution], Regularly] | None = None
    finetune: AdaptationConfig = field(default_factory=AdaptationConfig)
    imagination: ImaginationConfig = NEVER
    games_before: Sequence[str] = ()


def run_stages(
    settings: Settings, tokenizer: Tokenizer, model: WorldActionModel, store: EpisodeStore, distribution: Distribution
) -> Path:
    """Train through all stages, from the newest checkpoint when resuming; returns the run's folder.

    Raises UserError when another process trains the run in that folder, before anything there is touched.
    """
    check_agreement(distribution, flatten(asdict(settings.config)))
    folder = Path(settings.out)
    with ExitStack() as held:
        distribution.on_main(lambda: held.enter_context(alone_in(folder)))
        train_stages(settings, tokenizer, model, store, distribution)
        distribution.barrier()
    return folder


def train_stages(
    settings: Settings, tokenizer: Tokenizer, model: WorldActionModel, store: EpisodeStore, distribution: Distribution
) -> None:
    """What `run_stages` does while rank 0 holds the run's folder."""
    training, length, folder = settings.training, model.config.blocks, Path(settings.out)
    trains_tokenizer = any(stage.trains_tokenizer and stage.steps > 0 for stage in settings.stages.values())
    learner = make_learner(tokenizer, model, settings.objective, store, distribution, trains_tokenizer)
    resume_from = distribution.from_main(lambda: checkpoint_to_resume(folder, settings.resume))
    place = restore(resume_from, learner) if resume_from is not None else None
    learner.adaptation = settings.finetune
    adapt(model, settings.finetune, settings.seed, resume_from)
    missed = distribution.from_main(lambda: place is not None and not looked_at(folder, place))
    stages = remaining(settings.stages, place, folder, missed)
    selection = open_selection(store, settings.data)
    facts = run_facts(settings.data, store, selection)
    facts |= {"adaptation": settings.finetune.facts, "games_before": list(settings.games_before)}
    # Where the data are may differ, what they are and where training goes on may not.
    check_agreement(distribution, {"the place to go on from": place, **_by_game(facts)})
    if resume_from is not None:
        check_same_data(resume_from, facts)
    check_rewards(store)
    check_actions(store)
    check_logger(training.logger)
    check_batch_size(training.batch_size, len(sequences(store, settings.data, length, "training", selection).order(0)))
    distribution.on_main(lambda: prepare_run_folder(settings.out, settings.resume, settings.config))
    distribution.on_main(lambda: set_aside_undone(folder, list(settings.stages), place))
    with (
        full_disk(folder, f"go on with resume={folder}"),
        closing(MetricsLog(folder, training.logger, active=distribution.is_main)) as log,
    ):
        run = Run(folder, settings.seed, training, distribution, log, facts, settings.imagination)
        for name, stage in stages:
            here = place is not None and place.stage == name
            data, held_out = stage_data(store, settings.data, selection, stage, tokenizer, length, distribution)
            pictured = sequences(store, settings.data, length, "held_out")
            first_step = place.step if here and place is not None else 0
            train_stage(
                run, name, stage, learner, data,
                *hooks_and_judge(settings, stage, learner, held_out, pictured, distribution),
                resume_from=resume_from if here else None,
                first_step=first_step,
                look_first=(here and missed) or (training.look_first and first_step == 0),
            )  # fmt: skip


def hooks_and_judge(
    settings: Settings,
    stage: StageConfig,
    learner: Learner,
    held_out: SequenceDataset,
    pictured: SequenceDataset,
    distribution: Distribution,
) -> tuple[list[Regularly], Judge]:
    """What looks at a stage regularly, and what its best checkpoint is: by its score if it plays one game or games of
    known scores, else by its loss.

    held_out, pictured: the held-out sequences as the stage reads them, and with frames.
    """
    training, folder = settings.training, Path(settings.out)
    validation = validation_hook(learner, held_out, training, distribution)
    picture = picture_hook(learner, pictured, folder, distribution)
    hooks = [] if validation is None else [Regularly(validation, training.validate_every)]
    hooks += [] if picture is None else [Regularly(picture, training.picture_every)]
    by_loss = Judge(HELD_OUT, True, {"validation_sequences": training.validation_sequences})
    if settings.evaluate is None or not stage.trains_q:
        return hooks, by_loss
    played = {key: value for key, value in asdict(settings.config.evaluation).items() if key != "every"}
    # The returns of several games of unknown scores can't be added up.
    known = [game for game in held_out.games if None not in (reference(game).random, reference(game).human)]
    judge = Judge(SCORE, False, played) if known or len(held_out.games) == 1 else by_loss
    return [*hooks, settings.evaluate(learner, distribution)], judge


def checkpoint_to_resume(run: Path, resume: str) -> Path | None:
    """The newest checkpoint if one is to be gone on from, None to begin.

    Raises UserError when it is damaged, or there is none in a run that was named.
    """
    found = list_checkpoints(run) if resume != "no" else []
    if not found and resume not in ("no", "auto"):
        raise UserError(f"The run in {run} has no checkpoint yet: give its settings again with out={run} resume=auto.")
    if found:
        check_intact(found[-1])
    return found[-1] if found else None


def run_facts(data: DataConfig, store: EpisodeStore, selection: Selection | None) -> dict[str, Any]:
    """What a checkpoint's description says of the data it was made with."""
    return {
        "jowa": jowa.__version__,
        "games": list(store.games),
        "data": str(Path(data.path).resolve()),
        "data_fingerprints": {game: store.fingerprint(game) for game in store.games},
        "selection": None if selection is None else {game: selection.fingerprint(game) for game in store.games},
        "holdout": data.holdout,
        "stride": data.stride,
        "pad": data.pad,
        "balance": data.balance,
    }


def _by_game(facts: Mapping[str, Any]) -> dict[str, Any]:
    """{"data fingerprints of Pong": …, "stride": 4, …}: what must be the same on every process."""
    leaves = flatten({name: value for name, value in facts.items() if name != "data"})
    return {key.replace("_", " ").replace(".", " of "): value for key, value in leaves.items()}


def check_same_data(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Raises UserError when a run would go on with other data than it began with: it couldn't repeat itself."""
    before, run = read_description(checkpoint), checkpoint.parent.parent
    for name in ("games", "data_fingerprints", "selection", "holdout", "stride", "pad", "balance"):
        theirs, ours = before.get(name), facts[name]
        if theirs == ours:
            continue
        key = "path" if name == "data_fingerprints" else name
        game = first_difference(ours, theirs) if isinstance(theirs, dict) and isinstance(ours, dict) else None
        raise UserError(
            f"The run in {run} was made with other data: data.{key} or the episodes{f' of {game}' if game else ''} "
            "there have changed; restore them to resume, or start a new run in another out."
        )


def remaining(
    stages: Mapping[str, StageConfig], place: Place | None, run: Path, missed: bool
) -> list[tuple[str, StageConfig]]:
    """The stages that still have steps to take, and one at its end that nothing has looked at there (`missed`).

    Raises UserError when the place is in none of them, or they ask for other steps than those already done.
    """
    names = list(stages)
    if place is None:
        return [(name, stage) for name, stage in stages.items() if stage.steps > 0]
    if place.stage not in stages:
        raise UserError(f"The run in {run} is at stage {place.stage}, not in {', '.join(names)}: set another out.")
    first = names.index(place.stage)
    for name in names[: first + 1]:
        done = [int(path.name.rsplit("-", 1)[1]) for path in list_checkpoints(run, name)[-1:]]
        if done and (stages[name].steps < done[0] or (name != place.stage and stages[name].steps != done[0])):
            raise UserError(
                f"The run in {run} has done {done[0]} steps of {name} and is at step {place.step} of {place.stage}, so "
                f"{name} can't have {stages[name].steps} steps: set its steps to {done[0]}"
                + (" or more." if name == place.stage else ".")
            )
    if place.step == stages[place.stage].steps and not missed:
        first += 1
    return [(name, stages[name]) for name in names[first:] if stages[name].steps > 0]


def make_learner(
    tokenizer: Tokenizer, model: WorldActionModel, objective: ObjectiveConfig, store: EpisodeStore,
    distribution: Distribution, trains_tokenizer: bool = True,
) -> Learner:  # fmt: skip
    config = tokenizer.config
    wanted = config.perceptual == "lpips" and trains_tokenizer
    perceptual = load_lpips(config.perceptual_weights) if wanted else None
    legal = legal_table(store.games, model.config)
    learner = Learner(tokenizer, model, objective, legal, perceptual, distribution.ranks)
    return learner.to(distribution.device)


def legal_table(games: tuple[str, ...], model: ModelConfig) -> Tensor:
    """(games, actions) bool; games without data keep all actions, nothing reads them.

    Raises UserError when the model has no row for a game, or another set of actions.
    """
    table = np.ones((num_tasks(), model.actions), dtype=bool)
    for game in games:
        check_game_fits(model, game)
        table[task_id(game)] = legal_mask(game)
    return torch.from_numpy(table)


def use_threads(threads: int | None) -> None:
    """PyTorch's threads in this process; None leaves its own choice. Raises UserError for less than one."""
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}.")
    if threads is not None:
        torch.set_num_threads(threads)
