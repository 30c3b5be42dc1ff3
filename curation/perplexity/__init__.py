"""Perplexity: CCNet's normaliser, pieces, Kneser-Ney models of our own, scoring, and buckets."""
