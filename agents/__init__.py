"""Stable-Baselines3 agents, the reward model they dream with, and the search loop."""
