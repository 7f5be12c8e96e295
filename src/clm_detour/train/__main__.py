"""Train one phase: composer -n 4 -m clm_detour.train CONFIG arm=ARM phase=PHASE [key=value ...]."""

from clm_detour.train.main import main

if __name__ == "__main__":
    main()
