"""Neural signed distance fields."""
