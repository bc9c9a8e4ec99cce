"""A server that takes its time, always the same."""

from tiny.server import Behaviour, serve

serve(Behaviour(takes=0.02))
