def all_problems(recipe, tree):
    return []
