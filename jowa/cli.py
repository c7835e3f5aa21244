"""The door of every entry point: compose the configuration, call, and turn a user's mistake into one sentence."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jowa.envs.environment_spec import EnvironmentConfig, game_name
from jowa.errors import Interrupted, UserError
from jowa.overrides import assignment
from jowa.resuming import going_on

Config = TypeVar("Config")


def config_folder() -> Path:
    """The presets: `configs/` of a checkout, or the copy that travels inside the wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise UserError(f"The presets are missing: expected a folder 'configs' in {package}; install jowa again.")


def _game_name(game: str | None, env: str | None, name: str | None) -> str:
    """What presets call a run's game that may be an environment: ${game_name:${game},${env},${environment.name}}."""
    return game or game_name(env or "", EnvironmentConfig(name))


OmegaConf.register_new_resolver("game_name", _game_name, replace=True)


def load_config(schema: type[Config], name: str, overrides: Sequence[str]) -> Config:
    """Compose `configs/<name>.yaml` with Hydra-style overrides into plain dataclasses.

    A schema with a `resume` that may name a run goes on with it, by that run's own configuration: see `going_on`.

    Raises UserError for an unknown key, preset or value, naming the key, and for a value that is missing.
    """
    composed = compose_config(schema, name, overrides)
    if isinstance(composed.get("resume"), str):
        try:
            composed = going_on(composed, overrides, partial(compose_config, schema, name), _node(schema))
        except OmegaConfBaseException as error:
            raise UserError(_sentence(error, schema)) from error
    missing = _missing_keys(OmegaConf.to_container(composed))
    if missing:
        raise UserError(f"A value is missing: give {' and '.join(f'{key}=…' for key in missing)}.")
    try:
        result: Any = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(_sentence(error, schema)) from error
    return result


def compose_config(schema: type[Any], name: str, overrides: Sequence[str]) -> DictConfig:
    """The same before missing values are asked for and references to other keys are followed."""
    GlobalHydra.instance().clear()
    # Of two presets the later one wins, and an ablation changes an experiment, never the other way round.
    overrides = sorted(overrides, key=lambda override: override.startswith("+ablation="))
    node = _node(schema)
    ConfigStore.instance().store(name=f"{name}_schema", node=node)
    try:
        with initialize_config_dir(config_dir=str(config_folder()), version_base=None):
            composed = compose(config_name=name, overrides=overrides)
        # Merging once more refuses what `+key=value` smuggled past the schema.
        merged = OmegaConf.merge(node, OmegaConf.to_container(composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_sentence(error, schema)) from error
    assert isinstance(merged, DictConfig)
    return merged


def _node(schema: type[Any]) -> DictConfig:
    node: DictConfig = OmegaConf.structured(schema)
    _thaw(node)
    return node


def run(main: Callable[[Any], None], schema: type[Any], name: str) -> None:
    """Run one entry point from the command line.

    A UserError ends it with one sentence and exit code 2, a signal that a run heeds with how to go on and 128 + signal.
    """
    arguments = sys.argv[1:]
    try:
        if {"-h", "--help"} & set(arguments):
            print(_help(name, main))
            return
        if "--cfg" in arguments:
            overrides = [argument for argument in arguments if argument != "--cfg"]
            print(OmegaConf.to_yaml(compose_config(schema, name, overrides)))
            return
        main(load_config(schema, name, arguments))
    except UserError as error:
        print(f"jowa: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            reason = f"stopped by {signal.Signals(stop.signal_number).name} after {stop.place}"
            command = f"{_command(name)} {assignment('resume', str(stop.run))}"
            with contextlib.suppress(OSError):  # nobody may be reading any more
                print(f"jowa: {reason}; go on with: {command}", file=sys.stderr)
        sys.exit(128 + stop.signal_number)
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"jowa: {error.filename} can't be read or written: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jowa: interrupted", file=sys.stderr)
        sys.exit(130)


def _thaw(node: Container) -> None:
    """Frozen dataclasses become read-only nodes; presets and overrides must still reach them, and dictionaries grow."""
    OmegaConf.set_readonly(node, None)
    if OmegaConf.get_type(node) is dict:
        OmegaConf.set_struct(node, False)
    keys: list[Any] = []
    if isinstance(node, DictConfig):
        keys = list(node.keys())
    elif isinstance(node, ListConfig):
        keys = list(range(len(node)))
    for key in keys:
        child = node._get_node(key)
        if isinstance(child, Container) and not child._is_none() and not child._is_missing():
            _thaw(child)


def _missing_keys(values: Any, prefix: str = "") -> list[str]:
    # Not OmegaConf.missing_keys: it fails where one key refers to another that is missing.
    if not isinstance(values, dict):
        return [prefix.removesuffix(".")] if values == "???" else []
    return [missing for key, value in values.items() for missing in _missing_keys(value, f"{prefix}{key}.")]


def _known_keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return []
    keys = []
    for key in map(str, node):
        keys.append(f"{prefix}{key}")
        keys += _known_keys(node._get_node(key), f"{prefix}{key}.")
    return keys


def _nearest_key(key: str, known: list[str]) -> str:
    """What the user may have meant, or what there is beside it."""
    group, _, name = key.rpartition(".")
    beside = [one.removeprefix(f"{group}.") for one in known if group and one.startswith(f"{group}.")]
    if beside and not difflib.get_close_matches(name, beside, n=1, cutoff=0.5):
        return f"{group} has {', '.join(beside)}."
    close = difflib.get_close_matches(key, [f"{group}.{one}" for one in beside] or known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else "run with --cfg to see every key."


def _sentence(error: Exception, schema: type[Any]) -> str:
    """One line of what Hydra or OmegaConf say in many."""
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' can't be read: write key=value, lists as key=[a,b], text with odd signs in quotes."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' (?:is )?not in", text)
    if unknown and "not in" in text + str(cause):
        key = getattr(cause, "full_key", None) or unknown.group(1) or unknown.group(2)
        return f"Unknown configuration key '{key}'; {_nearest_key(key, _known_keys(OmegaConf.structured(schema)))}"
    option = re.search(r"Could not find '([^']+)'.*?(?:Available options in '[^']*':(.*))?$", text, re.DOTALL)
    if option:
        names = (option.group(2) or "").split("Config search path")[0].split()
        close = difflib.get_close_matches(option.group(1).rpartition("/")[2], names, n=1, cutoff=0.5)
        nearest = f"; did you mean '{close[0]}'? There are" if close else "; choose one of"
        return f"There is no preset '{option.group(1)}'" + (f"{nearest}: {', '.join(names)}." if names else ".")
    key = getattr(cause, "full_key", None)
    first = str(cause).strip().splitlines()[0]
    if key and "is not a ListConfig" in first:
        return f"Configuration key '{key}' is a list: write {key}=[…], with brackets also around a single entry."
    group = re.search(r"(?:In '(.+)': )?Could not override '(\w+)'. No match in the defaults list", text)
    if group:
        preset, name = group.groups()
        if preset:
            out = preset.replace("/", "=")
            return f"The preset {preset} chooses a {name}, and this command takes none: leave out +{out}."
        if name not in ("exp", "ablation", *OmegaConf.structured(schema)):
            return f"This command takes no {name}: leave out {name}=…, or see all keys by --cfg."
        return f"'{name}' isn't chosen by default: write +{name}=… with a plus."
    return f"Configuration key '{key}': {first}" if key else f"Configuration: {first}"


def _module(name: str) -> str:
    """Whose configuration has that name: where jowa and jowa.data both have such a module, jowa.data's is `data_…`."""
    if (Path(__file__).parent / f"{name}.py").is_file():
        return f"jowa.{name}"
    return f"jowa.data.{name.removeprefix('data_')}"


def _command(name: str) -> str:
    """How this process was started, as far as it can know."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return f"python -m {_module(name)}"
    nodes, processes = (os.environ.get(key, "1") for key in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    several = "" if nodes == "1" else f"--nnodes={nodes} … "
    return f"torchrun {several}--nproc-per-node={processes} -m {_module(name)}"


def _help(name: str, main: Callable[..., Any]) -> str:
    summary = (sys.modules[main.__module__].__doc__ or "").strip()
    groups = sorted(folder.name for folder in config_folder().iterdir() if folder.is_dir())
    presets = []
    for group in groups:
        names = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        presets.append(f"  {group}: {', '.join(names)}")
    usage = f"usage: python -m {_module(name)} [key=value …]   (--cfg prints every key and its value)"
    heading = "presets, chosen by group=name (ablation and exp by +group=name):"
    return "\n".join([summary, "", usage, "", heading, *presets])
