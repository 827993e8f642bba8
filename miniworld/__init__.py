"""The miniature world: a renderer of simple scenes and a real SD1-family diffusion model trained on them.

It stands in for Stable Diffusion wherever no such weights are at hand: in the demo, in the tests and in the
laboratory where the paper's tables are measured with ground truth. See ``miniworld/README.md``.
"""
