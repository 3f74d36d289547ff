"""What a prior leaves open of the observed quantities given z, one description a file."""
