"""How right the world model and its Q are, on held-out data and in what was played."""
