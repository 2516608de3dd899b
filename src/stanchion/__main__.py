"""`python -m stanchion` is the command `stanchion`."""

from stanchion.cli.main import run

if __name__ == "__main__":
    run()
