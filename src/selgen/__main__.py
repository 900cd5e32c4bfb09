"""`python -m selgen` is `selgen`."""

from selgen.cli import main

if __name__ == "__main__":
    main()
