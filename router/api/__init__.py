"""HTTP: thin endpoints over the engine."""
