"""The methods of a contest: each a file with a function `run(entry)`, found by name.

`run` asks its entry to evaluate plans until it has none left or knows no better; it returns a remark for people where
something went wrong, such as a policy that collapsed, and nothing else.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from rlprune import settings
from rlprune.agents.contest import Entry
from rlprune.agents.preparation import number_of_kinds
from rlprune.allocators.sensitivity import number_of_evaluations
from rlprune.budget import Budget
from rlprune.errors import UserError, unknown

METHODS = {name: "agent" if name in settings.AGENTS else name.replace("-", "_") for name in settings.METHODS}
"""Method -> its file."""
BLIND = ("uniform", "global-l1", "random", "amc")
"""They do not look at sensitivities."""
LIBRARIES = {"cma-es": "cma"}

Method = Callable[[Entry], str]


def find_method(name: str) -> Method:
    """The function of a method.

    Raises:
        UserError: unknown method, or a library it needs is missing.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    if name in LIBRARIES and find_spec(LIBRARIES[name]) is None:
        raise UserError(
            f"method {name} needs the library {LIBRARIES[name]}: pip install 'rlprune[compare]', or leave it out of "
            "--methods"
        )
    return import_module(f"rlprune.agents.rivals.{METHODS[name]}").run


def needed(name: str, groups: int, budget: Budget) -> int:
    """How many evaluations a method cannot do without."""
    if name in BLIND:
        return 1
    # The rule ends with its plan; whoever searches measures the other base plans, too.
    return number_of_evaluations(groups) + (1 if name == "sensitivity" else number_of_kinds(budget))
