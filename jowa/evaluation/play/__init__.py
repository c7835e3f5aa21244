"""Episodes: who plays, how many side by side, and the ledger that keeps every finished one."""
