"""The pages and the code say the same, and every link leads somewhere."""

import ast
import json
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from fastapi import FastAPI

from router.core.errors import SwitchyardError
from router.core.models import EndpointPhase, RolloutPhase, ServerPhase, TrainingPhase
from router.core.specs import Resources, TrainerEntry, parse_specs
from router.core.verdicts import AnalysisPolicy
from router.runtimes.process_sources import Description
from router.settings import Settings
from router.wiring import build_app
from scripts.service_commands import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("*/README.md")])


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return build_app(Settings(state_path=tmp_path_factory.mktemp("state")))


# --- tables ----------------------------------------------------------------------------------------------


def test_every_setting_stands_on_its_page_with_its_default_and_its_documentation() -> None:
    """On failure, paste the missing lines from what is shown."""
    lines = (DOCS / "settings.md").read_text().splitlines()
    assert [row for row in map(describe_setting, Settings.model_fields) if row not in lines] == []


def test_no_page_names_a_setting_that_there_is_not() -> None:
    first_cells = re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "settings.md").read_text(), re.MULTILINE)
    of_scripts = {"SWITCHYARD_HOME", "PYTHON", "TEST_WORKERS"}
    assert {name for name in first_cells if name.lower() not in Settings.model_fields} == of_scripts
    table = section(README, "Settings")
    named = re.findall(r"`([A-Z_]{4,})`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    assert [name for name in named if name.lower() not in Settings.model_fields] == []


def test_every_error_code_stands_on_the_page_of_the_calls() -> None:
    lines = (DOCS / "api.md").read_text().splitlines()
    assert [row for row in map(describe_error, error_classes()) if row not in lines] == []


def test_every_end_of_a_training_or_rollout_stands_there_too() -> None:
    page = (DOCS / "api.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", page, re.MULTILINE)
    assert sorted(failures() - set(rows)) == []
    known = {(each.code, str(each.status)) for each in error_classes()}
    assert sorted(set(rows) - known - failures()) == []


def test_every_call_stands_on_the_page_of_the_calls(app: FastAPI) -> None:
    page = (DOCS / "api.md").read_text()
    calls = {
        f"`{method.upper()} {path}`" for path, methods in app.openapi()["paths"].items() for method in methods
    }
    assert sorted(call for call in calls if call not in page) == []
    named = set(re.findall(r"`(?:GET|POST|DELETE|PUT|PATCH) /\S*`", page))
    assert sorted(named - calls) == []


def test_every_field_of_a_spec_stands_in_the_readme() -> None:
    text = section(README, "A trainer's spec")
    fields = [*TrainerEntry.model_fields, *Resources.model_fields]
    assert [name for name in fields if f"`{name}" not in text] == []
    first_cells = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(first_cells))
    assert [name for name in named if name not in TrainerEntry.model_fields] == []


def test_every_field_of_the_analysis_stands_on_its_page_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", (DOCS / "analysis.md").read_text(), re.MULTILINE)
    fields = AnalysisPolicy.model_fields
    assert dict(rows) == {name: str(field.default) for name, field in fields.items()}


def test_the_spec_that_the_readme_shows_is_a_good_one() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", section(README, "A trainer's spec"), re.DOTALL)
    (spec,) = parse_specs(shown[0], "README.md", {}).values()
    assert spec.env["DATASET_PATH"] == "/data/churn.csv"
    assert spec.resources.memory == 2 * 1024**3


@pytest.mark.parametrize("page", [DOCS / "process-runtime.md", ROOT / "model-images" / "README.md"], ids=str)
def test_every_key_of_a_source_stands_on_the_pages_that_explain_them(page: Path) -> None:
    text = page.read_text()
    assert [key for key in Description.model_fields if f"`{key}`" not in text] == []


@pytest.mark.parametrize("phases", [TrainingPhase, RolloutPhase, ServerPhase, EndpointPhase])
def test_every_phase_is_drawn(phases: type[StrEnum]) -> None:
    drawings = re.findall(r"```mermaid\n(.*?)```", (DOCS / "recovery.md").read_text(), re.DOTALL)
    drawn = [set(re.findall(r"\w+", drawing)) for drawing in drawings]
    assert any(set(phases) <= words for words in drawn)


# --- links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    text = README.read_text()
    assert [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in text] == []


def test_the_readme_counts_on_the_ports_that_are_the_defaults() -> None:
    ports = {int(port) for port in re.findall(r"localhost:(\d+)", README.read_text())}
    defaults = (Settings.model_fields[name].default for name in ("router_port", "proxy_public_port"))
    assert ports == {*defaults, Settings.model_fields["mlflow_service_port"].default}


# --- what the code says ----------------------------------------------------------------------------------


def describe_setting(name: str) -> str:
    """Its line of the page; a default that follows from another setting is told by that one's name."""
    field = Settings.model_fields[name]
    followed = {"state_path": Path("STATE_PATH"), "mlflow_service_port": "MLFLOW_SERVICE_PORT"}
    default = field.get_default(call_default_factory=True, validated_data=followed)
    if isinstance(default, range):
        default = f"{default.start}-{default.stop - 1}"
    cell = "none" if default is None else f"`{default}`"
    return f"| `{name.upper()}` | {cell} | {' '.join((field.description or '').split())} |"


def describe_error(error: type[SwitchyardError]) -> str:
    meaning = (error.__doc__ or "").strip().splitlines()[0]
    return f"| `{error.code}` | {error.status} | {meaning} | {'yes' if error.retryable else 'no'} |"


def error_classes(base: type[SwitchyardError] = SwitchyardError) -> list[type[SwitchyardError]]:
    """Those with a code of their own."""
    found = [base]
    for child in base.__subclasses__():
        found += error_classes(child)
    ours = [each for each in found if each.__module__ == SwitchyardError.__module__]
    return [each for each in ours if "code" in vars(each)]


def failures() -> set[tuple[str, str]]:
    """Code and status of each `Failure(code="...")` in the router, but for those that are errors too."""
    classes = {each.code for each in error_classes()}
    return {
        (code, status)
        for path in (ROOT / "router").rglob("*.py")
        for code, status in list_failures(ast.parse(path.read_text()))
        if code not in classes
    }


def list_failures(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Failure":
            given = {key.arg: key.value.value for key in node.keywords if isinstance(key.value, ast.Constant)}
            if "code" in given:
                yield str(given["code"]), str(given.get("status", 500))


def section(page: Path, heading: str) -> str:
    """From this heading to the next of its rank."""
    text = page.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert text, f"{page.name} has no section {json.dumps(heading)}"
    return text
