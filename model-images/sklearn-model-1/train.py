"""A random forest on scikit-learn's diabetes data, or on the CSV file that `DATASET_PATH` names."""

from pydantic import Field
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor

from modelkit.train import Dataset, TrainingSettings, run_training


class ForestSettings(TrainingSettings):
    n_estimators: int = Field(default=100, ge=1, le=10_000)
    max_depth: int | None = Field(default=None, ge=1)


def load_built_in() -> Dataset:
    return Dataset(name="diabetes", frame=load_diabetes(as_frame=True).frame)


def build_forest(settings: ForestSettings) -> RandomForestRegressor:
    return RandomForestRegressor(
        n_estimators=settings.n_estimators,
        max_depth=settings.max_depth,
        random_state=settings.random_state,
        n_jobs=-1,
    )


if __name__ == "__main__":
    run_training(
        settings=ForestSettings,
        build=build_forest,
        built_in=load_built_in,
        experiment="diabetes_rf_demo",
        model_name="DiabetesRF",
    )
