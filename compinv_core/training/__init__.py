"""Training without a method: the loop, its state on disk, optimisers, memory, and what long work reports."""
