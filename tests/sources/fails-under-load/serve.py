"""A server that is well while one asks, and fails when many do."""

from tiny.server import Behaviour, serve

serve(Behaviour(fails_above=2, takes=0.02))
