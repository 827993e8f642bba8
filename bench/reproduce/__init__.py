"""The paper's Table 1, its figures and its rating study, on the miniature world or on a Stable Diffusion of yours."""
