"""The accessor ``.sda`` on Dataset and DataTree."""
