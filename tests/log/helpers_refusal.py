"""How the naive fold refuses."""


class No(Exception):
    """A refusal, by its code."""
