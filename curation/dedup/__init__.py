"""Deduplication: exact and MinHash signatures, matching over all sources, paragraph dedup, and an index of versions."""
