"""Models and adapters as users see them."""
