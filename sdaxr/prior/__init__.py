"""Score-based priors: networks, their composition over a trajectory, training, and the file format."""
