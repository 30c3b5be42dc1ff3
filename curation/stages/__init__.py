"""Steps as stages: what each kind compiles to, and what its stages do."""
