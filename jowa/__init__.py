"""JOWA, the jointly-optimised world-action model (arXiv 2410.00564): pretrain, finetune, plan, evaluate."""

__version__ = "0.1.0"
