"""Where trainers and servers run."""
