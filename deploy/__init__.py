"""Ways to run Carina: the `carina` command, the embedded stack, the demo, container images."""
