"""The ablation as a part of a run: design, swarm, evidence, chosen weights, confirmation, sizes."""
