"""How fast the parts and the whole are, and what their links carry."""
