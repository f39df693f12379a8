"""The one exception for what a user can mend."""


class InputError(Exception):
    """Bad input: says what was wrong, what was expected and what to do next; a command prints it and exits with 2."""
