"""Layout guidance measured: what it costs, and what its methods and other regional prompts do on the same layouts."""
