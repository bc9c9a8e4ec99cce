"""A server that needs a while to get ready."""

from tiny.server import Behaviour, serve

serve(Behaviour(ready_after=2.0))
