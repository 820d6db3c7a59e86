"""`python -m app`, the same as `afterimage`."""

from app.cli import main

if __name__ == "__main__":  # not in a worker, which imports this too where it is no copy of its supervisor
    main()
