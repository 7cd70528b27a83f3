"""The walk over a network's groups as reinforcement-learning environments."""

from gymnasium.envs.registration import register

ENVIRONMENT_ID = "rlprune/ChannelPruning-v0"

register(ENVIRONMENT_ID, entry_point="rlprune.envs.channel_pruning:ChannelPruningEnv")
