"""The one error a user can cause."""


class UserError(Exception):
    """A mistake in what was asked: one clear sentence that says what to do and names the config key to change.

    Entry points print it without a traceback and exit with code 2.
    """
