"""The latency of plans: measured layers, a model fitted to them, timing, backends."""
