"""The base images of our Dockerfiles: pulled, or built from Debian's packages where no registry gives them.

A stand-in has the official tag, so that one Dockerfile builds everywhere, and a label with what it was made
from: it is made again when this machine's package index, certificates or Caddy have changed.
"""

import io
import json
import os
import re
import ssl
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from scripts.engine import Client, EngineError, find_program, install_package, say
from scripts.service_commands import CADDY, ROOT

LABEL = "switchyard.stand-in"
KEPT = ROOT / ".local" / "engine"
DOCKERFILES = ROOT / "scripts" / "stand-ins"
SUITE = "trixie"  # its Python is 3.13
EXTRA_CERTIFICATES = Path("/usr/local/share/ca-certificates")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # inside the images

# Permitted and effective: CAP_NET_BIND_SERVICE, bit 10, in the kernel's `struct vfs_cap_data`, revision 2.
BIND_LOW_PORTS = b"\x01\x00\x00\x02" + (1 << 10).to_bytes(4, "little") + bytes(12)


def ensure_base_images(client: Client) -> None:
    ensure_image(client, "python:3.13-slim", describe_python, fill_python)
    ensure_image(client, "caddy:2.11.4", describe_caddy, fill_caddy)


def ensure_image(
    client: Client, image: str, describe: Callable[[], list[bytes]], fill: Callable[[Path], None]
) -> None:
    """`describe` gives all that a stand-in depends on, `fill` writes its build context."""
    dockerfile = DOCKERFILES / f"{image.split(':')[0]}.Dockerfile"
    found = client.attempt("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image)
    made_from = found.stdout.strip()
    if found.returncode == 0 and not made_from:
        return
    stamp = sha256(b"\0".join([dockerfile.read_bytes(), *describe()])).hexdigest()[:16]
    if made_from == stamp:
        return
    if not made_from:
        say(f"pulling {image}")
        pulled = client.attempt("pull", "--quiet", image)
        if pulled.returncode == 0:
            return
        if find_program("apt-get") is None or os.geteuid() != 0:
            raise EngineError(
                f"{image} cannot be pulled ({pulled.stderr.strip()}): load it into the engine, or, on Debian,"
                " have a stand-in built: sudo scripts/get-engine"
            )
    say(f"building a stand-in for {image}, which no registry gives here")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as context:
        fill(Path(context))
        client.run(
            "build",
            "--quiet",
            "--file",
            str(dockerfile),
            "--label",
            f"{LABEL}={stamp}",
            "--tag",
            image,
            context,
        )


def describe_python() -> list[bytes]:
    return [SUITE.encode(), read_bundle(), *(content for _, content in sorted(system_files().items()))]


def fill_python(context: Path) -> None:
    root = KEPT / f"{SUITE}.tar"
    if not root.exists():
        if find_program("debootstrap") is None:
            install_package("debootstrap")
        say(f"unpacking Debian's packages of {SUITE} -> {root.relative_to(ROOT)}")
        tar = str(root.relative_to(ROOT))
        run_library(
            'make_debian_root "$@"', SUITE, tar, "ca-certificates", "python3", "python3-venv", "python3-pip"
        )
    (context / "root.tar").hardlink_to(root)
    (context / "bundle.crt").write_bytes(read_bundle())
    for path, content in system_files().items():
        target = context / "system" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def system_files() -> dict[str, bytes]:
    """Where this machine finds packages, for pip, uv and apt inside an image; folders of it are not there."""
    script = 'follow_pip_index; printf "%s\\n" "${UV_DEFAULT_INDEX:-}" "${UV_INDEX:-}"'
    default, extra = (
        [url for url in line.split() if is_remote(url)] for line in run_library(script).split("\n")[:2]
    )
    pip = ["[global]", f"cert = {BUNDLE}"]
    uv = ["system-certs = true"]
    if default:
        pip.append(f"index-url = {default[0]}")
        uv.append(f'index-url = "{default[0]}"')
    if extra:
        pip.append(f"extra-index-url = {' '.join(extra)}")
        uv += [f"extra-index-url = {json.dumps(extra)}", 'index-strategy = "unsafe-best-match"']
    settings = run_library("apt-config dump").splitlines()
    apt = [line for line in settings if re.match(r"Acquire::(Check-Valid-Until|https?::(.*::)?Proxy) ", line)]
    files = {
        "etc/pip.conf": "\n".join([*pip, ""]).encode(),
        "etc/uv/uv.toml": "\n".join([*uv, ""]).encode(),
        "etc/apt/apt.conf.d/80host": "\n".join([*apt, ""]).encode(),
    }
    for certificate in sorted(EXTRA_CERTIFICATES.glob("**/*.crt")):
        files[str(certificate.relative_to("/"))] = certificate.read_bytes()
    return files


def is_remote(url: str) -> bool:
    return "://" in url and not url.startswith("file:")


def read_bundle() -> bytes:
    """The certificates that this machine's programs trust; SSL_CERT_FILE names others."""
    found = ssl.get_default_verify_paths().cafile or BUNDLE
    return Path(found).read_bytes()


def describe_caddy() -> list[bytes]:
    if not CADDY.exists():
        say("getting Caddy -> .local/caddy")
        run_library("with_setup_lock make_caddy")
    return [sha256(CADDY.read_bytes()).digest(), read_bundle()]


def fill_caddy(context: Path) -> None:
    busybox = KEPT / "busybox" / "usr" / "bin" / "busybox"
    if not busybox.exists():
        say("unpacking Debian's package busybox-static -> .local/engine/busybox")
        run_library('unpack_debian_packages "$@"', SUITE, ".local/engine/busybox", "busybox-static")
    linked = run_library('ldd "$1" || true', str(CADDY)).split()  # it fails on a static binary
    with tarfile.open(context / "root.tar", "w") as tar:
        add_file(tar, "usr/bin/caddy", CADDY.read_bytes(), capability=BIND_LOW_PORTS)
        add_file(tar, "bin/busybox", busybox.read_bytes())
        for library in (word for word in linked if word.startswith("/")):
            add_file(tar, library.removeprefix("/"), Path(library).read_bytes())
        add_file(tar, BUNDLE.removeprefix("/"), read_bundle())
        add_file(tar, "etc/caddy/Caddyfile", b":80\n\nroot * /usr/share/caddy\nfile_server\n")
        add_file(
            tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
        )
        add_file(tar, "etc/group", b"root:x:0:\nnobody:x:65534:\n")
        add_file(tar, "etc/nsswitch.conf", b"hosts: files dns\n")


def add_file(tar: tarfile.TarFile, path: str, content: bytes, capability: bytes | None = None) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o755
    if capability:
        entry.pax_headers = {"SCHILY.xattr.security.capability": capability.decode()}
    tar.addfile(entry, io.BytesIO(content))


def run_library(script: str, *arguments: str) -> str:
    """A few lines on the functions of scripts/lib."""
    sources = "for library in scripts/lib/*.sh; do source $library; done"
    command = ["bash", "-euo", "pipefail", "-c", f"{sources}; {script}", "bash", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"{script.split()[0]} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
