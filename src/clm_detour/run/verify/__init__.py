"""`clm-detour doctor --verify`: check on this machine, in a minute or two, what a long run depends on."""
