"""Servers and a trainer of the standard library alone, which start in a moment and misbehave to order."""
