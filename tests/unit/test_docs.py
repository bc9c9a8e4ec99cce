"""The pages and the code say the same, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from router.core.errors import SwitchyardError
from router.settings import Settings
from scripts.service_commands import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def error_classes(base: type[SwitchyardError] = SwitchyardError) -> list[type[SwitchyardError]]:
    found = [base]
    for child in base.__subclasses__():
        found += error_classes(child)
    return [each for each in found if each.__module__ == SwitchyardError.__module__]


def test_every_error_code_is_on_the_page_about_the_calls() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", page, flags=re.MULTILINE))
    assert rows == {each.code: str(each.status) for each in error_classes()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_setting_is_on_the_page_about_settings() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name.upper()}`" not in page] == []
