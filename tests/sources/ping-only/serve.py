"""A server that is up and cannot predict."""

from tiny.server import Behaviour, serve

serve(Behaviour(prediction_status=500))
