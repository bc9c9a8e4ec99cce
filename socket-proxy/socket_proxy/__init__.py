"""The only holder of the Docker socket: forwards the calls a router needs, and rebuilds what it creates.

To review it, read in this order. Each question is decided in one place:

1. target.py: which calls there are, with which parameters; paths and queries that could be read in two ways
2. app.py, `_carry_out`: what each kind of call has to pass, and all that ever goes out to Docker
3. rebuild.py: what a container may be, key by key; strict_json.py before it: bodies that mean one thing only
4. images.py: which names the patterns of images allow
5. exchange.py: headers, framing and size of a request; how an answer or a refusal goes back
6. settings.py: what the operator may change, and the defaults

No decisions: docker.py (the client on the socket), refusal.py (the one exception), __main__.py (the process).
"""
