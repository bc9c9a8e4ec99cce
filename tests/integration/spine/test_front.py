"""The server that docs/operations.md puts in front of the public port, for TLS under a domain name."""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from scripts.service_commands import ROOT, caddy_command, caddy_environment
from tests.integration.spine.stage import add_trainer
from tests.services.caddy import short_directory
from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess
from tests.services.yard import Yard

DOMAIN = "models.example.org"
# For a domain that nobody has: a certificate of its own making, and the system's store of them left alone.
OPTIONS = "{\n\tadmin off\n\tskip_install_trust\n\tlocal_certs\n\thttp_port %d\n\thttps_port %d\n}\n"


@contextmanager
def run_front(public_url: str) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Its port, and what trusts its certificate."""
    (block,) = re.findall(r"```caddyfile\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    port = find_free_port()
    with short_directory() as directory:
        config = directory / "Caddyfile"
        text = block.replace("127.0.0.1:9000", public_url.removeprefix("http://"))
        config.write_text(OPTIONS % (find_free_port(), port) + text)
        authority = directory / "caddy-data" / "caddy" / "pki" / "authorities" / "local" / "root.crt"

        def shows_its_certificate() -> bool:
            try:
                trusting = ssl.create_default_context(cafile=str(authority))
                with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                    trusting.wrap_socket(plain, server_hostname=DOMAIN).close()
            except OSError:
                return False
            return True

        front = ServiceProcess(caddy_command(config), caddy_environment(directory), directory / "log")
        front.start(shows_its_certificate)
        try:
            yield port, ssl.create_default_context(cafile=str(authority))
        finally:
            front.stop()


def test_the_documented_server_in_front_answers_by_tls_under_the_domain_name(yard: Yard) -> None:
    trainer = add_trainer(yard)
    yard.post(f"/admin/train_then_roll/{trainer.name}")
    with (
        run_front(yard.public_url) as (port, trusting),
        httpx.Client(verify=trusting, trust_env=False, timeout=30) as client,
    ):
        answer = client.post(
            f"https://127.0.0.1:{port}/invocations",
            json={"inputs": [[1.0]]},
            headers={"Host": DOMAIN},
            extensions={"sni_hostname": DOMAIN},
        )
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Served-By"]
