"""`python -m clm_detour`: the same as the command `clm-detour`."""

from clm_detour.cli import main

if __name__ == "__main__":
    main()
