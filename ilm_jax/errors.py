"""The one exception that is a message to a person."""


class UserError(Exception):
    """Wrong input that the user can mend.

    The message is one line: what was wrong, where (file and line, binding, parameter path), and
    what to do. The command line prints it without a traceback and exits with code 2.
    """
