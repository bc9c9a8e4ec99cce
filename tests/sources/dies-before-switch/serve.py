"""A server that proves itself and dies when it is asked once more, just before it gets traffic."""

from tiny.server import Behaviour, serve

serve(Behaviour(dies_at_ping=4))
