"""Training: objectives, what they learn from, and what is watched meanwhile."""
