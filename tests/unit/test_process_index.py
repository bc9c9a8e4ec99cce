"""uv is told what pip was told."""

from pathlib import Path

import pytest

from router.core.errors import LaunchFailed
from router.runtimes.process_index import follow_pip


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A pip.conf that the environment names, in a home that has none."""
    return tmp_path / "pip.conf"


def follow(settings: Path, **more: str) -> dict[str, str]:
    return follow_pip({"HOME": str(settings.parent), "PIP_CONFIG_FILE": str(settings), **more})


def test_an_index_and_a_certificate_are_followed(settings: Path) -> None:
    settings.write_text("[global]\nindex-url = https://packages.example/simple\ncert = /etc/ca.pem\n")

    found = follow(settings)

    assert found["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert found["SSL_CERT_FILE"] == "/etc/ca.pem"


def test_more_indexes_are_all_asked_for_the_best_version(settings: Path) -> None:
    settings.write_text(
        "[global]\nextra-index-url =\n  https://a.example/simple\n  https://b.example/simple\n"
    )

    found = follow(settings)

    assert found["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_folders_of_packages_are_followed(settings: Path) -> None:
    settings.write_text("[install]\nfind_links = /wheels /more\nno-index = true\n")

    found = follow(settings)

    assert found["UV_FIND_LINKS"] == "/wheels,/more"
    assert found["UV_NO_INDEX"] == "1"


def test_pips_variables_win_over_its_files_and_uvs_own_over_both(settings: Path) -> None:
    settings.write_text("[global]\nindex-url = https://file.example/simple\n")

    by_pip = follow(settings, PIP_INDEX_URL="https://pip.example/simple")
    by_uv = follow(
        settings, PIP_INDEX_URL="https://pip.example/simple", UV_DEFAULT_INDEX="https://uv.example"
    )

    assert by_pip["UV_DEFAULT_INDEX"] == "https://pip.example/simple"
    assert by_uv["UV_DEFAULT_INDEX"] == "https://uv.example"


def test_a_percent_sign_in_an_address_is_taken_as_it_is(settings: Path) -> None:
    settings.write_text("[global]\nindex-url = https://user:p%40ss@packages.example/simple\n")

    assert follow(settings)["UV_DEFAULT_INDEX"] == "https://user:p%40ss@packages.example/simple"


def test_no_python_is_ever_downloaded(settings: Path) -> None:
    assert follow(settings)["UV_PYTHON_DOWNLOADS"] == "never"


def test_a_file_that_cannot_be_read_is_named(settings: Path) -> None:
    settings.write_text("index-url without a section")

    with pytest.raises(LaunchFailed, match=r"pip\.conf"):
        follow(settings)
