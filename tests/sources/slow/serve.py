"""A server that takes three times as long as `steady`."""

from tiny.server import Behaviour, serve

serve(Behaviour(takes=0.06))
