"""What environments that are stepped as one array answer to Stable-Baselines3."""

from typing import Any

from stable_baselines3.common.vec_env.base_vec_env import VecEnv


class ArrayVecEnv(VecEnv):
    """Environments that share everything but a row of every array."""

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same value for every environment."""
        value = getattr(self, attr_name, None) if attr_name != "render_mode" else None
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported: all share what they act on."""
        raise AttributeError(f"'{attr_name}' cannot be set on single environments: they share what they act on")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not supported: they are arrays, not objects."""
        raise AttributeError(f"'{method_name}' cannot be called on single environments: they are arrays")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never wrapped one by one."""
        return [False] * len(list(self._get_indices(indices)))
