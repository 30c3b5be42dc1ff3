"""Names of the perplexity levels. No kernels are loaded for them: recipes are checked by these names."""


def level_names(num_cutoffs: int) -> list[str]:
    """Names of the levels between cutoffs: head, tail; head, middle, tail; head, middle_1, …, tail."""
    inner = num_cutoffs - 1
    middles = ["middle"] if inner == 1 else [f"middle_{i}" for i in range(1, inner + 1)]
    return ["head", *middles, "tail"]
