"""Click-through-rate models that look at what items are, not only at who clicked them."""

__version__ = "0.1.0"
