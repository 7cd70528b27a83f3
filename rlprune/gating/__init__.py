"""Networks that choose channels for every image (Chen, Chen & Pan, NeurIPS 2020)."""
