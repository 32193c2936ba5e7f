def choose(count):
    """Which columns to take, best first; ties in any order."""
    scores = {f"f{i}": 1.0 for i in range(count)}
    ranked = sorted(scores.keys() & {"f0", "f1", "f2", "f3"}, key=scores.get)  # <- hash_order
    return [int(name[1:]) for name in ranked]
