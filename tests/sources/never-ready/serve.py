"""A server that never gets ready."""

from tiny.server import Behaviour, serve

serve(Behaviour(never_ready=True))
