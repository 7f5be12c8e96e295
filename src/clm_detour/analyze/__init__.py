"""The differences between a network after a detour and its twin: representations, weights and gradients."""
