"""Results of the GPU benchmark, for the tests."""


def errors(values, path=()):
    """Every "error" in nested results, with where it is."""
    if not isinstance(values, dict):
        return []
    found = [(path, values["error"])] if values.get("error") else []
    return found + [e for key, inner in values.items() for e in errors(inner, (*path, key))]
