"""Multiresolution and other input encodings."""
