"""Where packages come from, for uv: what this machine's pip was told.

uv reads neither pip's configuration files nor its variables. One configuration must hold for both, or the
router installs from another place than the scripts and the people of the machine do.
"""

from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path

from router.core.errors import LaunchFailed

SECTIONS = ("global", "install")  # the later one wins
PREFIX = "PIP_"


def follow_pip(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, with uv's settings that follow from pip's. What is set for uv already stays."""
    settings = read_pip_settings(environment)
    found: dict[str, str] = {}
    if index := settings.get("index-url"):
        found["UV_DEFAULT_INDEX"] = index
    if extra := settings.get("extra-index-url"):
        found["UV_INDEX"] = " ".join(extra.split())
        # pip takes the best version of all its indexes; uv would stop at the first that knows the name.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := settings.get("find-links"):
        found["UV_FIND_LINKS"] = ",".join(links.split())
    if cert := settings.get("cert"):
        found["SSL_CERT_FILE"] = cert
    if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        found["UV_NO_INDEX"] = "1"
    return {**found, "UV_PYTHON_DOWNLOADS": "never", **environment}


def read_pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """By pip's own names and order of precedence. Raises LaunchFailed, naming a file that cannot be read."""
    settings: dict[str, str] = {}
    for path in list_config_files(environment):
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (Error, UnicodeDecodeError) as error:
            raise LaunchFailed(f"pip's configuration {path} cannot be read: {error}") from error
        for section in SECTIONS:
            if parser.has_section(section):
                settings |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for name, value in environment.items():
        if name.startswith(PREFIX) and value:
            settings[name.removeprefix(PREFIX).lower().replace("_", "-")] = value
    return settings


def list_config_files(environment: Mapping[str, str]) -> list[Path]:
    """pip's files for the machine and the user, the later ones winning; named one by PIP_CONFIG_FILE last."""
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        Path("/Library/Application Support/pip/pip.conf"),
    ]
    if home := environment.get("HOME"):
        config = Path(environment.get("XDG_CONFIG_HOME") or Path(home) / ".config")
        files += [Path(home) / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
        files.append(Path(home) / "Library" / "Application Support" / "pip" / "pip.conf")
    if named := environment.get("PIP_CONFIG_FILE"):
        files.append(Path(named))
    return files
