"""JOWA, the jointly-optimised world-action model (arXiv 2410.00564): pretrain, finetune, plan, evaluate."""

import gymnasium

__version__ = "0.1.0"

# Gymnasium has no plugins any more: whoever imports jowa finds its environment, as with ale-py's.
gymnasium.register(
    "jowa/Dream-v0",
    entry_point="jowa.dream_env:DreamEnv",
    vector_entry_point="jowa.dream_env:DreamVectorEnv",
    max_episode_steps=15,
)
