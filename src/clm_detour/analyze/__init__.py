"""What the detour did to a network: how its representations, weights and gradients differ from its twin's, and which of its parts matter."""
