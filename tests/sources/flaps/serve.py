"""A server that is ready at every second look."""

from tiny.server import Behaviour, serve

serve(Behaviour(flaps=True))
