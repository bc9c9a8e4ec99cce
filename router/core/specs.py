"""What a trainer spec may say, and how a file of them is read: every mistake with its file, line and key."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from router.core.errors import InvalidSpec
from router.core.gates import GatePlan
from router.core.spec_text import ENV_FIELD, KeyPath, Problem, SpecText, read_text
from router.core.strategies import Strategy
from router.core.traffic import NAME_PATTERN
from router.core.variables import experiment_of, find_problem, printable, registered_model_of, text_of

YEAR_SECONDS = 366 * 86_400
SHOWN_PROBLEMS = 20
BAD_TRAINER_NAME = (
    "a trainer's name has up to 63 letters, digits, `_`, `.` and `-`, and begins with a letter or digit"
)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?(b|[kmgt](?:i?b)?)?", re.IGNORECASE)
_VOLUME = re.compile(r"(?!/tmp:)(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){1,32}:ro")
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,200}")
_MEMORY_STEPS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def read_memory(value: object) -> object:
    """`512m`, `2g`, `1.5GiB` to bytes, in steps of 1024 as Docker counts; anything else as it is."""
    if not isinstance(value, str):
        return value
    match = _MEMORY.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be bytes, or a size such as 512m or 2g")
    return int(float(match[1]) * 1024 ** _MEMORY_STEPS[(match[2] or "b")[0].lower()])


def read_gpus(value: object) -> object:
    """0 asks for none, which is what a runtime without GPUs takes too."""
    if value is None:
        return None
    text = str(value) if isinstance(value, str | int) else ""
    if not re.fullmatch(r"all|[0-9]{1,4}", text):
        raise ValueError("must be `all` or a number")
    return text if text.strip("0") else None


def check_folder(value: str) -> str:
    """The `:ro` must be said, since nobody can have it otherwise."""
    if not _VOLUME.fullmatch(value):
        raise ValueError("must be a folder in the container, and read-only: /path:ro")
    return value


def check_volume_name(value: str) -> str:
    if not _VOLUME_NAME.fullmatch(value):
        raise ValueError("must be the name of a volume, not a path: letters, digits, `_`, `.` and `-`")
    return value


def check_reference(value: str) -> str:
    if not value.strip() or len(value) > 1024 or not value.isprintable():
        raise ValueError("must be a name of up to 1024 characters, none of them a control character")
    return value


def check_endpoint(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError("must be the name of an endpoint: letters, digits, `_`, `.` and `-`, at most 63")
    return value


Reference = Annotated[str, AfterValidator(check_reference)]
VolumeName = Annotated[str, AfterValidator(check_volume_name)]
Folder = Annotated[str, AfterValidator(check_folder)]


class Resources(BaseModel):
    """Limits of one trainer or server. `required: false` lets a runtime that has no limits ignore them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cpus: float | None = Field(default=None, gt=0, le=1024, allow_inf_nan=False)
    memory: Annotated[Annotated[int, Field(ge=4 * 1024 * 1024)] | None, BeforeValidator(read_memory)] = None
    pids: int | None = Field(default=None, ge=1)
    required: bool = True

    @property
    def empty(self) -> bool:
        return self.cpus is None and self.memory is None and self.pids is None


class TrainerEntry(BaseModel):
    """The fields that a person may write under a trainer's name. All may be left out, or be null.

    Which of the images and folders is used when: see `router.core.images`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    trainer_image: Reference | None = None
    image_options: dict[Reference, Reference] = Field(default_factory=dict)
    serve_image: Reference | None = None
    serve_image_options: dict[Reference, Reference] = Field(default_factory=dict)
    source: Reference | None = None
    timeout: float | None = Field(default=None, gt=0, le=YEAR_SECONDS, allow_inf_nan=False)  # seconds
    gpus: Annotated[str | None, BeforeValidator(read_gpus)] = None
    env: dict[str, str] = Field(default_factory=dict, repr=False)  # may hold secrets
    resources: Resources = Resources()
    rollout: Strategy | None = None
    gates: GatePlan | None = None
    volumes: dict[VolumeName, Folder] = Field(default_factory=dict, max_length=16)
    endpoint: Annotated[str, AfterValidator(check_endpoint)] | None = None  # where train_then_roll rolls to

    @field_validator("volumes")
    @classmethod
    def check_volumes(cls, volumes: dict[str, str]) -> dict[str, str]:
        if len(set(volumes.values())) < len(volumes):
            raise ValueError("two volumes have one folder")
        return volumes

    @property
    def mounts(self) -> dict[str, str]:
        """Volumes and their folders, without the mode, which is always the same."""
        return {name: folder.removesuffix(":ro") for name, folder in self.volumes.items()}

    @field_validator("env")
    @classmethod
    def check_env(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            problem = find_problem(name, value)
            if problem is not None:
                raise ValueError(f"{printable(name)}: {problem}")
        return env


class TrainerSpec(TrainerEntry):
    """A trainer, with its name and the place where it is written."""

    name: str = Field(pattern=NAME_PATTERN)
    file: str
    line: int | None = None

    @property
    def where(self) -> str:
        return self.file if self.line is None else f"{self.file}, line {self.line}"

    @property
    def experiment(self) -> str:
        """By `env` alone; a request's parameters may say otherwise (`experiment_of` the merged env)."""
        return experiment_of(self.env, self.name)

    @property
    def registered_model_name(self) -> str | None:
        """By `env` alone, as `experiment`."""
        return registered_model_of(self.env)


class InvalidSpecFile(InvalidSpec):
    """A file of trainer specs is not valid."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        shown = [str(problem) for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__("\n".join(shown))

    @classmethod
    def of_text(cls, text: SpecText) -> Self:
        return cls(sorted(dict.fromkeys(text.problems), key=lambda problem: problem.line or 0))


def parse_specs(text: str, file: str, variables: Mapping[str, str]) -> dict[str, TrainerSpec]:
    """The trainers of one file (`file` is its name, for messages), with `${VAR}` taken from `variables`.

    All or nothing: raises InvalidSpecFile with everything that is wrong.
    """
    read = read_text(text, file, variables)
    specs = {}
    for name, entry in read.values.items():
        spec = _read_entry(read, name, entry)
        if spec is not None:
            specs[name] = spec
    if read.problems:
        raise InvalidSpecFile.of_text(read)
    return specs


def _read_entry(read: SpecText, name: str, entry: Any) -> TrainerSpec | None:
    path: KeyPath = (name,)
    if not re.fullmatch(NAME_PATTERN, name):
        read.complain(path, BAD_TRAINER_NAME)
        return None
    if entry is not None and not isinstance(entry, dict):
        read.complain(path, "must be a map of fields")
        return None
    given = {field: value for field, value in (entry or {}).items() if value is not None}
    if isinstance(given.get(ENV_FIELD), dict):
        given[ENV_FIELD] = _read_env(read, (*path, ENV_FIELD), given[ENV_FIELD])
    try:
        fields = TrainerEntry.model_validate(given)
    except ValidationError as error:
        _note_problems(read, path, error)
        return None
    return TrainerSpec(
        **{field: getattr(fields, field) for field in fields.model_fields_set},
        name=name,
        file=read.file,
        line=read.line_of(path),
    )


def _read_env(read: SpecText, path: KeyPath, env: dict[str, Any]) -> dict[str, str]:
    """The variables that are right; a null one is not set."""
    variables = {}
    for name, value in env.items():
        try:
            text = text_of(value)
        except ValueError:
            read.complain((*path, name), "cannot be written as JSON")
            continue
        problem = find_problem(name, text or "")
        if problem is not None:
            read.complain((*path, name), problem)
        elif text is not None:
            variables[name] = text
    return variables


_PLAIN_MESSAGES: dict[str, str] = {
    "string_type": "must be text (a number needs quotes)",
    "dict_type": "must be a map",
    "model_type": "must be a map of fields",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that stands there in an entry."""
    model: type[BaseModel] = TrainerEntry
    for part in location:
        field = model.model_fields.get(str(part))
        model = (_find_model(field.annotation) if field else None) or model
    return model


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _find_model(part))), None)


def _note_problems(read: SpecText, path: KeyPath, error: ValidationError) -> None:
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        where = (*path, *(part for part in found["loc"] if part != "[key]"))
        if found["type"] == "extra_forbidden":
            known = ", ".join(_model_at(found["loc"][:-1]).model_fields)
            message = f"there is no such field; the fields are {known}"
        else:
            message = _PLAIN_MESSAGES.get(found["type"], found["msg"].removeprefix("Value error, "))
        read.complain(where, message)
