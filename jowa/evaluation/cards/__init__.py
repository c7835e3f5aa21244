"""The card an exported agent travels with."""
