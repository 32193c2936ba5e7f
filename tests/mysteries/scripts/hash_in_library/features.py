def choose(count):
    """Which columns to take, best first; ties in any order."""
    scores = {f"f{i}": 1.0 for i in range(count)}
    ranked = sorted(set(scores), key=scores.get)  # <- hash_order
    return [int(name[1:]) % 4 for name in ranked]
