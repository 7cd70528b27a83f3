"""Whether processes can be started from the program that runs."""

import sys
from pathlib import Path

from rlprune.errors import UserError


def require_main_guard(workers: int) -> None:
    """Raise UserError if processes would run the program anew from its start.

    A process that reads images imports the program that started it; what that does at its top level, it does again.

    Args:
        workers: processes that are asked for.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    script = Path(main) if main else None
    if not workers or script is None or script.suffix not in (".py", "") or not script.is_file():
        return
    if "__name__" not in script.read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"workers={workers} starts processes that run {script.name} anew from its start: put what it does under "
            "`if __name__ == '__main__':`, or leave workers at 0"
        )
