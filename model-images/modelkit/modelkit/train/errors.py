"""What can go wrong in a training that its user can put right; anything else keeps its traceback."""


class TrainingError(Exception):
    """The training cannot go on."""


class DatasetError(TrainingError):
    """The data set cannot be read, or cannot be trained on."""


class TrackingError(TrainingError):
    """MLflow refused the run."""
