"""The only holder of the Docker socket: forwards the calls a router needs, and rebuilds what it creates."""
