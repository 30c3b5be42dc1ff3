"""Rules between a recipe's sections, and of what it names outside: conditions, files."""
