"""The control plane: trains models, proves them, and switches live traffic to them."""

__version__ = "0.1.0"
