"""`python -m app`, the same as `afterimage`."""

from app.cli import main

main()
