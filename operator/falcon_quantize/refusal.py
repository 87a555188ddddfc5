"""What ends a run with one sentence instead of a traceback."""

# As the launcher's (falcon_engine.signatures): nothing that is tried again without a change gets further.
CONFIGURATION_EXIT = 2


class Refusal(Exception):
    """The user has to change something: the sentence says what, with the file or the option, and the way out."""
