"""Documents: sources, signals, rules, perplexity buckets, deduplication and the ledger. Imports nothing upstream."""
