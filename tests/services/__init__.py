"""The real services that tests and benchmarks run against, each as a context manager."""
