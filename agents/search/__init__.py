"""The search loop: archive, surrogate, rounds, fidelities."""
