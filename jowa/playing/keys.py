"""From keys held down to a game's action: arrows and fire for ALE's actions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from jowa.games import ACTION_NAMES, ALE_ACTIONS, action_set, legal_actions

KEYS = ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")

_KEYS_OF = {
    index: frozenset(key for key in KEYS if key in name) for index, name in enumerate(ACTION_NAMES) if name != "NOOP"
}


def no_op(game: str) -> int | None:
    """The action that does nothing; None where the game has none, which then waits for a key."""
    return 0 if action_set(game) == ALE_ACTIONS and 0 in legal_actions(game) else None


def keys_of(game: str) -> tuple[str, ...]:
    """The keys that any of the game's actions needs; none where its actions are a set of its own."""
    if action_set(game) != ALE_ACTIONS:
        return ()
    used = frozenset[str]().union(*(_KEYS_OF.get(action, frozenset()) for action in legal_actions(game)))
    return tuple(key for key in KEYS if key in used)


def action_for(held: Sequence[str], game: str) -> int | None:
    """The legal action that the keys `held`, in the order they were pressed, mean; `no_op` where they mean none.

    Where there is no action of all of them, the largest part of them counts for which there is one, the keys pressed
    last before others.
    """
    meant = _meanings(game)
    latest_first = list(reversed(dict.fromkeys(held)))
    for size in range(len(latest_first), 0, -1):
        for part in combinations(latest_first, size):
            action = meant.get(frozenset(part))
            if action is not None:
                return action
    return no_op(game)


def _meanings(game: str) -> dict[frozenset[str], int]:
    legal: Iterable[int] = legal_actions(game) if action_set(game) == ALE_ACTIONS else ()
    return {_KEYS_OF[action]: action for action in legal if action in _KEYS_OF}
