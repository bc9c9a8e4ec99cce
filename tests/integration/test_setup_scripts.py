"""What a new machine meets first: the scripts that find packages where this machine is told to find them."""

import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from scripts.base_images import system_files
from scripts.service_commands import ROOT

LOCKS = sorted([*ROOT.glob("requirements/*.lock"), *ROOT.glob("model-images/*/requirements.lock")])
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def run_bash(script: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    command = ["bash", "-euo", "pipefail", "-c", script, "bash", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def find_sid_source(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return run_bash('source scripts/lib/debian.sh; write_suite_source sid "$@"', str(tmp_path / name)).strip()


def test_caddy_comes_from_the_mirror_of_a_one_line_apt_source(tmp_path: Path) -> None:
    text = (
        "# deb http://commented.example/debian bookworm main\n"
        "deb-src http://source.example/debian bookworm main\n"
        "deb http://mirror.example/debian-security bookworm-security main\n"
        "deb [arch=amd64 signed-by=/keys/own.gpg] http://mirror.example/debian bookworm main\n"
        "deb http://second.example/debian bookworm main\n"
    )
    found = find_sid_source(tmp_path, "debian.list", text)
    assert found == "deb [signed-by=/keys/own.gpg] http://mirror.example/debian sid main"


def test_caddy_comes_from_the_mirror_of_a_deb822_apt_source(tmp_path: Path) -> None:
    text = (
        "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nEnabled: no\n\n"
        "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\n"
        "Types: deb deb-src\n# a note\nURIs: http://mirror.example/debian/ http://other.example/debian\n"
        "Suites: bookworm\nComponents: main\n"
    )
    found = find_sid_source(tmp_path, "debian.sources", text)
    assert found == f"deb [signed-by={KEYRING}] http://mirror.example/debian/ sid main"


def test_caddy_comes_from_the_mirror_file_of_a_cloud_image(tmp_path: Path) -> None:
    text = (
        "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSigned-By:\n -----BEGIN PGP\n .\n x\n"
    )
    found = find_sid_source(tmp_path, "debian.sources", text)
    assert found == f"deb [signed-by={KEYRING}] mirror+file:///etc/apt/mirrors/debian.list sid main"


def test_a_system_without_a_debian_mirror_offers_none(tmp_path: Path) -> None:
    assert find_sid_source(tmp_path, "a.list", "deb http://archive.example/ubuntu noble main\n") == ""


def test_a_root_file_system_comes_from_the_first_of_a_list_of_mirrors(tmp_path: Path) -> None:
    mirrors = tmp_path / "debian.list"
    mirrors.write_text("# the nearest\nhttp://near.example/debian\tpriority:1\nhttp://far.example/debian\n")
    (tmp_path / "a.list").write_text(f"deb mirror+file:{mirrors} bookworm main\n")
    debootstrap = tmp_path / "debootstrap"
    debootstrap.write_text('#!/bin/sh\necho "$6" > "$5/mirror"\n')
    debootstrap.chmod(0o755)
    script = 'source scripts/lib/debian.sh; APT_SOURCES=("$1/a.list") PATH=$1:$PATH; '
    run_bash(f'{script} make_debian_root trixie "$1/root.tar" python3', str(tmp_path))
    with tarfile.open(tmp_path / "root.tar") as root:
        used = root.extractfile("./mirror")
        assert used is not None
        assert used.read() == b"http://near.example/debian\n"


def test_a_stand_in_finds_packages_where_its_host_does_but_not_in_folders_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://own.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///srv/wheels https://more.example/simple")
    files = system_files()
    pip = files["etc/pip.conf"].decode().splitlines()
    assert "index-url = https://own.example/simple" in pip
    assert "extra-index-url = https://more.example/simple" in pip
    uv = tomllib.loads(files["etc/uv/uv.toml"].decode())
    assert uv["index-url"] == "https://own.example/simple"
    assert uv["extra-index-url"] == ["https://more.example/simple"]


@pytest.mark.parametrize(
    ("set_for_pip", "set_for_uv", "variable", "expected"),
    [
        ({"PIP_INDEX_URL": "http://own.example/simple"}, {}, "UV_DEFAULT_INDEX", "http://own.example/simple"),
        ({"PIP_EXTRA_INDEX_URL": "http://b.example"}, {}, "UV_INDEX", "http://b.example"),
        ({"PIP_EXTRA_INDEX_URL": "http://b.example"}, {}, "UV_INDEX_STRATEGY", "unsafe-best-match"),
        ({"PIP_FIND_LINKS": "/wheels /more"}, {}, "UV_FIND_LINKS", "/wheels,/more"),
        ({"PIP_CERT": "/keys/ca.pem"}, {}, "SSL_CERT_FILE", "/keys/ca.pem"),
        ({"PIP_INDEX_URL": "http://a"}, {"UV_DEFAULT_INDEX": "http://u"}, "UV_DEFAULT_INDEX", "http://u"),
        ({}, {}, "UV_DEFAULT_INDEX", ""),
    ],
)
def test_uv_follows_what_pip_is_told(
    set_for_pip: dict[str, str], set_for_uv: dict[str, str], variable: str, expected: str
) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null", **set_for_pip, **set_for_uv}
    script = f'source scripts/lib/index.sh; follow_pip_index; printf %s "${{{variable}:-}}"'
    assert run_bash(script, environment=environment) == expected


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_a_lock_has_hashes_and_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"\b[a-z0-9-]+\.(?:org|com|net|io)\b", text)
    requirements = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert requirements
    assert all(re.match(r"\S+==\S+ (; .* )?\\$", line) for line in requirements)
    assert text.count("--hash=sha256:") >= len(requirements)


def test_client_server_and_trainers_have_one_version_of_mlflow() -> None:
    found = {
        version
        for lock in LOCKS
        for version in re.findall(r"^mlflow(?:-skinny)?==(\S+)", lock.read_text(), re.MULTILINE)
    }
    assert len(found) == 1


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {
        "router.lock": project["project"]["dependencies"],
        "dev.lock": project["dependency-groups"]["dev"],
    }
    for lock, requirements in asked.items():
        locked = (ROOT / "requirements" / lock).read_text()
        for requirement in requirements:
            name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            assert re.search(rf"^{name}==", locked, re.MULTILINE), (
                f"{name} is not in {lock}: run scripts/lock"
            )


def test_a_second_setup_finds_nothing_to_do() -> None:
    assert run_bash("scripts/setup --dev") == ""


def test_an_installation_that_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    router_lock = (ROOT / "requirements/router.lock").read_text()
    entry = re.search(r"^idna==.*\n(?: .*\n)+", router_lock, re.MULTILINE)
    assert entry is not None
    lock, environment = tmp_path / "idna.lock", tmp_path / "environment"
    lock.write_text(entry[0])
    script = 'cd "$1"; source "$2/scripts/lib/index.sh"; source "$2/scripts/lib/python.sh"; make_environment'
    (tmp_path / ".local").symlink_to(ROOT / ".local")
    make = (f"{script} environment idna.lock", str(tmp_path), str(ROOT))
    run_bash(*make, environment=dict(os.environ))
    (package,) = environment.glob("lib/python3*/site-packages/idna")
    shutil.rmtree(package)
    run_bash(*make, environment=dict(os.environ))
    assert (package / "__init__.py").is_file()
