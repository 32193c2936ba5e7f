"""What hypothesis draws for several tests."""

from hypothesis import strategies as st


def json_leaves(*words):
    """JSON without anything in it: NaN, huge numbers, these words too."""
    return (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(10**18, 10**400)
        | st.floats()
        | st.text(max_size=9)
        | st.sampled_from(words)
    )


def json_values(leaves, max_leaves):
    """These leaves, and lists and objects of them."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=max_leaves,
    )
