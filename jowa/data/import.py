"""Imports Atari data sets from local files into an episode store: `python -m jowa.data.import source=rlu path=…`.

RL Unplugged (rlu), the logs of DQN-Replay (dqn_replay) and Minari data sets (minari) become parts of the store, one for
each file or checkpoint. What is there already is left alone: start again to go on after an interruption.
"""

from __future__ import annotations

from jowa.cli import run
from jowa.data.importing import ImportConfig, describe, import_all
from jowa.errors import UserError


def main(config: ImportConfig) -> None:
    """Import what there is, print a table; UserError if anything that was asked for is missing."""
    outcome, missing = import_all(config)
    print(describe(outcome))
    for name in missing:
        print(f"missing: {name}")
    if missing:
        raise UserError(f"{len(missing)} of what was asked for is missing, as listed above; the rest is in the store.")


if __name__ == "__main__":
    run(main, ImportConfig, "import")
