"""Tokens as a part of a run: tokenizer, token shards, domains and plan, orders, formats of other tools."""
