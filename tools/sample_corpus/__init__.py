"""The generator of the sample corpus and of the sample tasks that ship with clm-detour."""
