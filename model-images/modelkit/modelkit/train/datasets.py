"""The table a training learns from: where it comes from, and how it is divided.

A trainer brings a built-in table so that it runs with nothing but its own image; `DATASET_PATH` puts another
in its place without a change of code.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from modelkit.settings import TrainingSettings
from modelkit.train.errors import DatasetError

_CSV_SUFFIXES = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip")
_FEWEST_TEST_ROWS = 2  # r2 is undefined below


@dataclass(frozen=True)
class Dataset:
    """One table, features and target together. `source` is the file it came from, if it came from one.

    `class_names` are what people call the classes, in the order of their values.
    """

    name: str
    frame: pd.DataFrame
    source: Path | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A dataset divided in two, each part with its target column still in it."""

    train: pd.DataFrame
    test: pd.DataFrame
    target: str
    class_names: tuple[str, ...] = ()

    @property
    def train_features(self) -> pd.DataFrame:
        return self.train.drop(columns=self.target)

    @property
    def train_target(self) -> pd.Series:
        return self.train[self.target]

    @property
    def test_features(self) -> pd.DataFrame:
        return self.test.drop(columns=self.target)

    @property
    def test_target(self) -> pd.Series:
        return self.test[self.target]


def load_dataset(settings: TrainingSettings, built_in: Callable[[], Dataset]) -> Dataset:
    """The table at `DATASET_PATH`, or the built-in one; checked to have a usable target."""
    dataset = built_in() if settings.dataset_path is None else _read_csv(settings.dataset_path)
    _check_target(dataset, settings.target_column)
    return replace(dataset, frame=_widen_integers(dataset.frame, settings.target_column))


def split_dataset(dataset: Dataset, settings: TrainingSettings, *, stratify: bool) -> Split:
    """`stratify` keeps the classes' shares equal in both parts."""
    labels = dataset.frame[settings.target_column] if stratify else None
    try:
        train, test = train_test_split(
            dataset.frame, test_size=settings.test_size, random_state=settings.random_state, stratify=labels
        )
    except ValueError as error:
        raise DatasetError(
            f"TEST_SIZE={settings.test_size}: {dataset.name} with {len(dataset.frame)} rows"
            f" cannot be divided: {error}"
        ) from error
    if len(test) < _FEWEST_TEST_ROWS:
        raise DatasetError(
            f"TEST_SIZE={settings.test_size}: leaves {len(test)} of {len(dataset.frame)} rows of"
            f" {dataset.name} to test on, at least {_FEWEST_TEST_ROWS} are needed"
        )
    return Split(train, test, settings.target_column, dataset.class_names)


def _read_csv(path: Path) -> Dataset:
    if not path.name.endswith(_CSV_SUFFIXES):
        raise DatasetError(f"DATASET_PATH={path}: not a CSV file (known endings: {', '.join(_CSV_SUFFIXES)})")
    try:
        frame = pd.read_csv(path)
    except (OSError, EOFError, ValueError) as error:  # ValueError: every parser and decoding error of pandas
        raise DatasetError(f"DATASET_PATH={path}: cannot be read: {error}") from error
    return Dataset(path.name.partition(".")[0], frame, path.resolve())


def _check_target(dataset: Dataset, target: str) -> None:
    columns = [str(column) for column in dataset.frame.columns]
    if target not in columns:
        shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise DatasetError(f"TARGET_COLUMN={target}: no such column in {dataset.name}, which has {shown}")
    if len(columns) == 1:
        raise DatasetError(f"{dataset.name} has no column beside its target {target}")
    missing = int(dataset.frame[target].isna().sum())
    if missing:
        raise DatasetError(f"TARGET_COLUMN={target}: {missing} rows of {dataset.name} have no value there")
    classes, names = dataset.frame[target].nunique(), len(dataset.class_names)
    if names not in (0, classes):
        raise DatasetError(f"{dataset.name} names {names} classes; its target has {classes}")


def _widen_integers(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """Integer features become floats.

    MLflow holds callers to the signature's types: an integer column would refuse `1.0` and missing values.
    """
    integers = [column for column in frame.select_dtypes("integer").columns if column != target]
    return frame.astype(dict.fromkeys(integers, "float64"))
