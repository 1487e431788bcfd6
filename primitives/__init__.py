"""The primitives: what is fitted, its loss and its exports."""
