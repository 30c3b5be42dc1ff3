"""Tokens: tokenizer, token shards, weights, schedules, the global order, ablations. Imports `curation` only."""
