"""Our server beside the others: the same models, requests, cores and minutes for all of them."""
