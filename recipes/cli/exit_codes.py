"""Exit codes of the command line, documented in docs/cli.md."""

DONE = 0
FAILED = 1
RECIPE_ERRORS = 2
NOT_YET = 3
REQUEUE = 10
STALLED = 20
RANK_LOST = 21
DIVERGED = 22
NO_SPACE = 23
SPIKED = 24
UNFIT = 25
INTERRUPTED = 130
