"""What can go wrong, for callers who want to tell the cases apart.

    FusionError
    ├── InputError            a value, text or option that a person gave cannot be used
    ├── ModelNotFoundError    a model name leads nowhere
    ├── ModelFormatError      a model or tokenizer is there, but cannot be used
    └── TooLargeError         a text or a model exceeds a stated limit

Every message is one sentence that says what was looked for and what to do.
The command line prints it and exits with status 2; the app shows it and keeps its state.
"""


class FusionError(Exception):
    """Base of every error that FuseLab raises on purpose."""

    def __init__(self, message: str) -> None:
        """Keep the message on one line, whatever file names or texts were quoted in it."""
        super().__init__(" ".join(str(message).split()))


class InputError(FusionError):
    """A value, text or option that a person gave cannot be used."""


class ModelNotFoundError(FusionError):
    """A model name leads to no model."""


class ModelFormatError(FusionError):
    """A model or tokenizer exists but is broken, incomplete or of an unsupported kind."""


class TooLargeError(FusionError):
    """A text or a model exceeds a stated limit."""
