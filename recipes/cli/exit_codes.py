"""Exit codes of the command line, documented in docs/cli.md."""

DONE = 0
FAILED = 1
RECIPE_ERRORS = 2
NOT_YET = 3
STALLED = 20
SPIKED = 24
REQUEUE = 10
RANK_LOST = 21
DIVERGED = 22
NO_SPACE = 23
INTERRUPTED = 130
