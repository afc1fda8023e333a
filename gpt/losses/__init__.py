"""Losses, their link functions, and the linear head that is fused with them."""
