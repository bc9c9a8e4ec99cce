"""A server that dies while it is being proved, at its third prediction."""

from tiny.server import Behaviour, serve

serve(Behaviour(dies_after_predictions=2))
