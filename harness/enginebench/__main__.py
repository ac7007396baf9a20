"""`python -m enginebench` is `bench`."""

from enginebench.cli import main

if __name__ == "__main__":
    main()
