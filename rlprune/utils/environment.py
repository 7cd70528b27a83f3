"""When and with what a result is made."""

import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version


def today() -> str:
    """The date, as ISO 8601 writes it; a run asks once, and keeps the answer."""
    return date.today().isoformat()


def environment() -> dict[str, str]:
    """Versions of what a result may depend on."""
    import torch

    packages = (
        "rlprune",
        "torch",
        "torchvision",
        "stable-baselines3",
        "gymnasium",
        "numpy",
        "scikit-learn",
    )
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
