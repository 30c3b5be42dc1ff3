"""Training as a part of a run: from the plan to checkpoints, evaluation and export, and what is seen meanwhile."""
