"""Exit codes of the command line, documented in docs/cli.md."""

DONE = 0
FAILED = 1
RECIPE_ERRORS = 2
NOT_YET = 3
STALLED = 20
REQUEUE = 21
RANK_LOST = 22
DIVERGED = 23
NO_SPACE = 24
INTERRUPTED = 130
