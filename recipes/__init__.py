"""Whole runs: the recipe, artifacts, the command line, the report and the recipes that ship."""
