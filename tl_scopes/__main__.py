"""``python -m tl_scopes``."""

from tl_scopes.cli.main import main

if __name__ == "__main__":
    main()
