"""The fixtures themselves: what the other suites take for granted about the services they run against."""

import json
from pathlib import Path

import httpx

from tests.conftest import StartCaddy
from tests.services.mlflow_server import MlflowServer
from tests.services.ports import find_free_port


def write_config(path: Path, admin_socket: Path, port: int) -> Path:
    answer = {"handle": [{"handler": "static_response", "body": "here"}]}
    server = {"listen": [f"127.0.0.1:{port}"], "routes": [answer]}
    config = {"admin": {"listen": f"unix/{admin_socket}"}, "apps": {"http": {"servers": {"public": server}}}}
    path.write_text(json.dumps(config))
    return path


def test_a_killed_caddy_starts_again_from_its_config_file(
    start_caddy: StartCaddy, socket_directory: Path, tmp_path: Path
) -> None:
    port = find_free_port()
    socket = socket_directory / "admin.sock"
    caddy = start_caddy(write_config(tmp_path / "caddy.json", socket, port), socket)
    assert httpx.get(f"http://127.0.0.1:{port}").text == "here"
    caddy.kill()
    assert not caddy.running
    caddy.start()
    assert httpx.get(f"http://127.0.0.1:{port}").text == "here"


def test_mlflow_accepts_its_own_address_and_refuses_any_other_host(mlflow_server: MlflowServer) -> None:
    url = f"{mlflow_server.url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"Host": "elsewhere:5000"}).status_code == 403
