"""`--criterion`: one for all groups, several of which an agent chooses for every group, or one a group by its name."""

from dataclasses import dataclass, fields

from rlprune import registry
from rlprune.errors import UserError

DEFAULT = "l1"
"""The criterion of the groups that no pattern names."""


@dataclass(frozen=True)
class Criteria:
    """What a `--criterion` says.

    Attributes:
        names: criteria with their settings; several only where an agent is to choose.
        patterns: of layers or groups, and the criterion of each, the first that fits counts; the last of `names` is
            that of all other groups.
    """

    names: tuple[str, ...]
    patterns: tuple[tuple[str, str], ...] = ()

    @property
    def several(self) -> bool:
        """Whether there is something to choose."""
        return len(self.names) > 1


def parse_criteria(text: str) -> Criteria:
    """Read names such as ``l1,taylor:order=2``, or patterns and names such as ``conv1=l1,layer3.*=taylor``.

    Raises:
        UserError: an unknown criterion or setting, one that is named twice, or names beside patterns.
    """
    parts = _split(text)
    fixed = [_is_pattern(part) for part in parts]
    if any(fixed):
        if not all(fixed):
            plain = parts[fixed.index(False)]
            raise UserError(
                f"--criterion {text} names '{plain}' beside a criterion of some groups: give names alone, of which the "
                f"agent chooses, or a pattern for each, such as '*={plain}' for all other groups"
            )
        pairs = [(pattern.strip(), name.strip()) for pattern, _, name in (part.partition("=") for part in parts)]
        for pattern, name in pairs:
            if not name:
                raise UserError(f"--criterion {text}: '{pattern}=' names no criterion, expected such as {pattern}=l1")
            registry.check("criterion", name)
        _refuse_twice(text, [pattern for pattern, _ in pairs])
        return Criteria((DEFAULT,), tuple(pairs))
    for part in parts:
        registry.check("criterion", part)
    _refuse_twice(text, parts)
    if not parts:
        raise UserError(f"--criterion {text} names no criterion, expected such as l1")
    return Criteria(tuple(parts))


def check_one_rule(text: str) -> None:
    """Raise UserError where there is no agent to choose among several."""
    if parse_criteria(text).several:
        raise UserError(
            f"--criterion {text} names several criteria, and nobody chooses here: give one, or one for each group, "
            "such as 'conv1=l1,layer3.*=taylor'"
        )


def _split(text: str) -> list[str]:
    """The parts between commas; settings have commas, too."""
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if found and _is_setting(found[-1], part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _is_setting(before: str, part: str) -> bool:
    """Whether a part goes on with the settings of the criterion before it."""
    name, sign, _ = (before.partition("=")[2] if _is_pattern(before) else before).partition(":")
    key, given, _ = part.partition("=")
    if not (sign and given) or name not in registry.names("criterion"):
        return False
    return key.strip() in {entry.name for entry in fields(registry.find("criterion", name))}


def _is_pattern(part: str) -> bool:
    """``conv1=l1`` and ``conv1=taylor:order=2`` are, ``taylor:order=2`` is not."""
    return "=" in part.partition(":")[0]


def _refuse_twice(text: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(f"--criterion {text} names {name} twice: give it once")
