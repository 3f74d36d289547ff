"""Figures, maps and animations."""
