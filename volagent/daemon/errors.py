"""Why a daemon cannot start."""


class StartError(Exception):
    """The daemon cannot start; the text is for a person, the hint says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
