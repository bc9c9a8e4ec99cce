"""A server that ends before it listens."""

import sys

sys.exit("no such model")
