"""The `carina` command. `carina probe` does not load the rest, which takes a second."""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["probe"]:
        from deploy.probe import main as probe

        sys.exit(probe(sys.argv[2:]))
    try:
        from deploy.cli import main as other
    except KeyboardInterrupt:
        sys.exit(130)
    other()


if __name__ == "__main__":
    main()
