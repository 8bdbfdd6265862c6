"""Training in random subspaces."""
