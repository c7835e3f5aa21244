"""Playing games into an episode store: behaviour policies, agents, and learners while they train."""
