"""Implementations, one folder a study: contract and cost model, references to learn from, and code that competes."""
