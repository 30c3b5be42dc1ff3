"""Questions to a run's ledger: why, what if, examples, differences, the documents of a train step, a forecast."""
