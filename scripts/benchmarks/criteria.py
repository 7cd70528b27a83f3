"""What the criteria cost, on two cores: seconds, those of the processor, which a busy machine tells better, and memory.

`python scripts/benchmarks/criteria.py` scores torchvision's resnet50 on 64 images of 224 pixels by each, in a process
of its own; with names, by these alone.
"""

import os
import subprocess
import sys
import time

import torch
from evaluation import Case
from structure import peak_memory
from torch import nn

from rlprune import registry
from rlprune.methods.criteria.base import score_channels
from rlprune.methods.criteria.base_gradients import chunks

CASE = Case("torchvision/resnet50", 224, 64, 0)
PASS, NOTHING = "forward and backward pass", "nothing but the network"


def measure(name: str) -> str:
    """Seconds that a criterion takes, and the memory that this process has held at its peak."""
    torch.set_num_threads(2)
    module, graph, images = CASE.build()
    labels = torch.arange(len(images)) % 10
    start, busy = time.perf_counter(), time.process_time()
    if name == PASS:
        for chunk in chunks(images):
            nn.functional.cross_entropy(module(images[chunk]), labels[chunk]).backward()
    elif name != NOTHING:
        score_channels(name, module, graph, (images, labels))
    seconds, of_processor = time.perf_counter() - start, time.process_time() - busy
    return f"| {name} | {seconds:.1f} s | {of_processor:.1f} s of both cores | {peak_memory():.0f} MiB |"


def of_child(name: str) -> str:
    """The same in a fresh process."""
    # Otherwise the C library keeps freed memory for itself, more or less of it from run to run.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "2"}
    words = [sys.executable, __file__, "--one", name]
    return subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(measure(sys.argv[2]))
    else:
        for name in [NOTHING, PASS, *(sys.argv[1:] or registry.names("criterion"))]:
            print(of_child(name), flush=True)
