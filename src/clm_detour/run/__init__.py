"""The steps of `clm-detour run`, and the checks before them."""
