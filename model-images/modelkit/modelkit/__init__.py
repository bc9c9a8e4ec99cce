"""What every model image shares: `modelkit.train` for its trainer, `modelkit.serve` for its server.

It stands alone: an image has modelkit and its own dependencies, never the control plane.
"""

import os

# MLflow and ONNX Runtime report usage to their makers unless told otherwise, and decide so while they are
# imported. A trainer or a server talks to nobody but the MLflow server it was given.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ORT_TELEMETRY_DISABLED", "1")  # its name for a while
