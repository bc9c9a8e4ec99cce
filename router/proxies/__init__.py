"""Who gets the traffic."""
