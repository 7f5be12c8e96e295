"""Train one phase under the launcher: composer -n 4 scripts/train.py CONFIG arm=detour phase=clm [key=value ...]."""

from clm_detour.train.main import main

if __name__ == "__main__":
    main()
