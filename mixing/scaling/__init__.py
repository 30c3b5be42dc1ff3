"""Scaling laws: loss over parameters, tokens, operations and mixture, with intervals, and what follows for a budget.

table (runs of any size) ─laws─▶ fits with a table of restarts ─study─▶ intervals, held-out largest size, optimal split
"""
