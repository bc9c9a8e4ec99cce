"""What goes wrong with a stack, for every script that drives one."""


class StackError(Exception):
    """Its text tells a person what failed and what to do."""
