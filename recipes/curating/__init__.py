"""Curation bound to a recipe: layers of each shard by key, limits, indexes, overlap."""
