"""A server that fails 5% of its requests."""

from tiny.server import Behaviour, serve

serve(Behaviour(fails_every=20))
