"""Text to begin with: the catalogue of packages that ship some, and text made by code."""
