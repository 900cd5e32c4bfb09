"""`python -m selgen` is `selgen`."""

from .cli import main

if __name__ == "__main__":
    main()
