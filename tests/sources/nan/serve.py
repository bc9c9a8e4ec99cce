"""A server whose predictions are not numbers."""

from tiny.server import Behaviour, serve

serve(Behaviour(prediction=float("nan")))
