"""What a trainer writes beside a model and a server reads: digests of its files, and what was proven of its
compiled form.

Both sides know the formats only from here. Nothing is imported that a lean server would have to wait for.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

DIGESTS_FILE = "digests.json"
COMPILED_FOLDER = "compiled"
GRAPH_FILE = f"{COMPILED_FOLDER}/model.onnx"
MANIFEST_FILE = f"{COMPILED_FOLDER}/manifest.json"

ColumnType = Literal["double", "float", "integer", "long", "string", "boolean"]
Label = bool | int | float | str


class FileDigest(Struct, frozen=True):
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: int


class Digests(Struct, frozen=True):
    """Every file of the logged model but this one, by its path."""

    files: dict[str, FileDigest]
    native: str = ""  # why the native model is served; empty if a proven compiled model is there
    classes: tuple[Label, ...] = ()  # of a classifier, in the model's order
    class_names: tuple[str, ...] = ()  # as people call them, if the data set says
    # The native model answers rows together as it does one by one, and takes much less for that.
    together: bool = False


class Column(Struct, frozen=True):
    """One input of the signature. What was not proven of it is left to the native model."""

    name: str
    type: ColumnType
    missing: bool = False  # proven to answer a missing value as the native model does
    known: tuple[str, ...] = ()  # of a text column: the values that were proven
    unknown: bool = False  # and whether any other is


class Manifest(Struct, frozen=True):
    """How the graph is fed and read, and what was proven of it."""

    columns: tuple[Column, ...]
    matrix: bool  # one input with all columns side by side; otherwise one input per column, by name
    precision: Literal["float32", "float64"]
    output: str
    answer: Literal["number", "integer", "boolean", "string"]  # what one value of the answer is
    flat: bool  # one value per row; otherwise a list of values per row
    tolerance: float  # relative to the larger of a value and the mean of all
    difference: float  # the largest that was found, in the same measure
    rows: int  # compared
