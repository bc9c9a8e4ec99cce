"""A server that keeps the contract."""

from tiny.server import Behaviour, serve

serve(Behaviour())
