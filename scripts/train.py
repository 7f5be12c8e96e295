"""Train one phase under the launcher: composer -n 4 scripts/train.py CONFIG arm=ARM phase=PHASE."""

from clm_detour.train.main import main

if __name__ == "__main__":
    main()
