"""`python -m socket_proxy.health`: exits with 0 if the proxy reaches Docker."""

import http.client
import sys

from socket_proxy.settings import Settings


def main() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", Settings.load().port, timeout=5)
    connection.request("GET", "/_ping")
    return 0 if connection.getresponse().status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
