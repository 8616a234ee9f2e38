"""The exceptions that are messages to a person."""


class UserError(Exception):
    """Wrong input that the user can mend.

    The message is one line: what was wrong, where (file and line, binding, parameter path), and
    what to do. The command line prints it without a traceback and exits with code 2.
    """


class SettingError(UserError, ValueError):
    """A setting of another type than its field, or out of range.

    Attributes:
      owner, field: names of the configuration's class and of its field.
      value: of the whole field, as it was given.
      remedy: what to give instead.
    """

    def __init__(self, owner: str, field: str, value: object, remedy: str) -> None:
        """Says so in one line."""
        self.owner, self.field, self.value, self.remedy = owner, field, value, remedy
        super().__init__(f"{owner}.{field}={value!r}: give {remedy}")
