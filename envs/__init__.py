"""The walk over a network's groups as reinforcement-learning environments."""

from rlprune.envs.registration import ENVIRONMENT_ID as ENVIRONMENT_ID
