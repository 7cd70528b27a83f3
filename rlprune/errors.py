"""Errors that speak to the person who typed the command."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """What the user gave cannot be used; the message says what was given, what was expected and the fix.

    The command line prints the message alone and ends with exit code 2; any other exception is a bug and
    keeps its traceback.
    """


def unknown(kind: str, given: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones, with the nearest match first.

    Args:
        kind: what the name stands for, such as ``"model"``.
        given: the name as it was given.
        known: every name that would have worked.
    """
    names = sorted(known)
    near = get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UserError(f"unknown {kind} '{given}': {hint}known: {', '.join(names)}")
