"""`python -m novacron`: the command, where its script is not on the path."""

from novacron.cli.main import main

if __name__ == "__main__":
    main()
