"""Going on with a run: which configuration holds, and what may differ from the one the run began with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from jowa.errors import UserError

CONFIG = "config.yaml"
Leaves = dict[str, Any]
"""A nested configuration as {"training.batch_size": 512, …}, in its own order; lists are values."""

FREE = re.compile(
    # Where things are: what is there decides (fingerprints of data, sizes of weights), not its path.
    r"out|resume|dry_run|ckpt|size|data\.(path|selection)|(tokenizer\.)?perceptual_weights"
    r"|stage\d*\.steps"
    # How it is computed, watched and kept.
    r"|training\.(micro_batch|device|threads|compile|logger|log_every|look_first|validate_every|validation_sequences"
    r"|picture_every|checkpoint_every|keep_checkpoints)|evaluation\.\w+|arms|seeds"
)
"""Keys that may change when a run goes on; all others fix its result."""

DELIBERATE = re.compile(r"stage\d*\.(tokenizer_)?learning_rate|training\.(gradient_clip|precision)")
"""Keys that may be changed besides by one who names the run and the key: what helps a run that has diverged."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Leaves:
    leaves: Leaves = {}
    for key, value in values.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """The first key, in our order, whose values differ."""
    absent = object()
    return next((key for key in [*ours, *theirs] if ours.get(key, absent) != theirs.get(key, absent)), None)


def check_same(run: Path, saved: Leaves, given: Leaves) -> None:
    """Raises UserError naming the first of the given values that isn't the run's, though it fixes the result."""
    for key, value in given.items():
        if not FREE.fullmatch(key) and value != saved.get(key):
            raise UserError(
                f"The run in {run} has {key}={_shown(saved.get(key))}, not {_shown(value)}: leave it as it was to go "
                "on with the run, or start a new one in another out."
            )


def saved_config(run: Path, schema: DictConfig) -> DictConfig:
    """The configuration that a run was last started with. Raises UserError when there is none that fits the schema."""
    path = newest_config(run)
    if path is None and run.parent.name == "checkpoints" and newest_config(run.parent.parent) is not None:
        raise UserError(f"{run} is one of a run's checkpoints: name the run's folder, resume={run.parent.parent}.")
    if path is None:
        raise UserError(f"There is no run in {run} (no {CONFIG}): give resume=<run's folder>, or begin with resume=no.")
    try:
        merged = OmegaConf.merge(schema, OmegaConf.load(path))
    except Exception as error:  # damaged and other programs' files fail in many ways
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is no configuration of this program ({reason}): choose another run.") from error
    assert isinstance(merged, DictConfig)
    return merged


def newest_config(run: Path) -> Path | None:
    resumed = [path for path in run.glob("config-resumed-*.yaml") if path.stem.rsplit("-", 1)[1].isdigit()]
    if resumed:
        return max(resumed, key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    return run / CONFIG if (run / CONFIG).is_file() else None


def going_on(
    composed: DictConfig, overrides: Sequence[str], compose: Callable[[Sequence[str]], DictConfig], schema: DictConfig
) -> DictConfig:
    """The configuration to run with, for one composed from `overrides` that says whether to `resume`.

    no: as composed. auto: as composed too, but where `out` holds a run it may differ from that run's in FREE keys
    alone. A run's folder: that run's own, with those values that were asked for; they may differ in FREE and
    DELIBERATE keys alone.

    Raises:
        UserError: the folder holds no run, or a value that fixes the result isn't the run's.
    """
    resume = str(composed["resume"])
    if resume.lower() in ("", "true", "false", "yes", "on", "off"):
        raise UserError(
            f"resume={resume.lower()} isn't clear: say resume=auto (go on with the run in out, or begin one), "
            "resume=<run's folder>, or resume=no."
        )
    if resume == "no":
        return composed
    if resume == "auto":
        complete = "???" not in _leaves(composed, resolve=False).values()
        run = Path(str(composed["out"])) if complete else None
        if run is not None and newest_config(run) is not None:
            check_same(run, _leaves(saved_config(run, schema)), _leaves(composed))
        return composed
    return _with_asked(Path(resume), overrides, compose, saved_config(Path(resume), schema))


def _with_asked(
    run: Path, overrides: Sequence[str], compose: Callable[[Sequence[str]], DictConfig], saved: DictConfig
) -> DictConfig:
    place = {"out": str(run), "resume": str(run)}
    keys = [override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))]
    given = _leaves(OmegaConf.merge(compose(overrides), place))
    if "out" in keys and Path(_leaves(compose(overrides))["out"]) != run:
        raise UserError(f"resume={run} goes on in that folder: leave out as it is, without out=….")
    usual = _leaves(OmegaConf.merge(compose([]), place))
    asked = {
        key: value
        for key, value in given.items()
        if value != usual[key] or any(key == named or key.startswith(f"{named}.") for named in keys)
    }
    check_same(run, _leaves(saved), {key: value for key, value in asked.items() if not DELIBERATE.fullmatch(key)})
    for key, value in (asked | place).items():
        OmegaConf.update(saved, key, value)
    return saved


def _leaves(config: Any, resolve: bool = True) -> Leaves:
    values = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(values, dict)
    return flatten({str(key): value for key, value in values.items()})


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
