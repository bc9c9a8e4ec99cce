"""What every model image shares: `modelkit.train` for its trainer, `modelkit.serve` for its server.

It stands alone: an image has modelkit and its own dependencies, never the control plane.
"""

import os

# MLflow reports usage to its makers unless told otherwise, and decides so while it is imported. A trainer or
# a server talks to nobody but the MLflow server it was given.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
