"""How people name models and their versions."""

MODEL_NAME_PATTERN = r"^[^/:%\\\x00-\x1f\x7f]{1,255}$"
MAX_VERSION = 2**31 - 1


def read_reference(value: int | str) -> int | str:
    """A version's number, which may come as text, or an alias, with or without its `@`."""
    if isinstance(value, int):
        return value
    return int(value) if value.isascii() and value.isdecimal() else value.removeprefix("@")
