"""Folders that leave the machine: pruned networks, their hub form and model card."""
