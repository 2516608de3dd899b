from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.evals.keyset import KeySet

keys = st.lists(st.tuples(st.text(max_size=6), st.integers(0, 3)), max_size=80)


@settings(deadline=None, max_examples=60)
@given(keys, keys)
def test_it_behaves_like_a_set(added: list[tuple[str, int]], asked: list[tuple[str, int]]) -> None:
    small, real = KeySet(), set()
    for key in added:
        assert small.add(key) == (key not in real)
        real.add(key)
    assert len(small) == len(real)
    assert [key in small for key in asked + added] == [key in real for key in asked + added]


def test_it_grows_without_losing_a_key() -> None:
    small = KeySet()
    assert all(small.add((str(n), 0)) for n in range(20_000))
    assert len(small) == 20_000
    assert all((str(n), 0) in small for n in range(20_000))
    assert ("20000", 0) not in small
