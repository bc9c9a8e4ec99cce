"""The gates: what a candidate must pass before it gets traffic."""
