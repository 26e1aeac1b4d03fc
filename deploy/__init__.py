"""How Carina is run: the `carina` command, the embedded stack, the demo, container images."""
