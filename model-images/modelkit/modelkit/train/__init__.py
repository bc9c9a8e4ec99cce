"""The train side: a `train.py` says what to build and on which data, and calls `run_training`."""

from modelkit.settings import TrainingSettings
from modelkit.train.datasets import Dataset
from modelkit.train.runner import run_training

__all__ = ["Dataset", "TrainingSettings", "run_training"]
