"""`python -m socket_proxy.health`: exits with 0 if the proxy reaches Docker.

It runs every few seconds, so it reads its one setting itself and imports nothing that takes time.
"""

import http.client
import os
import sys


def main() -> int:
    port = int(os.environ.get("SOCKET_PROXY_PORT") or 2375)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/_ping")
    return 0 if connection.getresponse().status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
