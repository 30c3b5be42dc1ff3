"""Ablations: which proxies to train, and what their losses say about weights.

`design` plans runs, `runs` holds their table, `analysis` fits surrogates and chooses weights, `sequential` places more
runs. Nothing here imports training; scipy, scikit-learn and LightGBM are imported only where a fit needs them.
"""
