"""How fast the study of two colors is, here and in PyTorch."""
