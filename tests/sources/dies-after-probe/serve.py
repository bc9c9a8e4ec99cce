"""A server that dies at the prediction after its proof."""

from tiny.server import Behaviour, serve

serve(Behaviour(dies_after_predictions=2))
