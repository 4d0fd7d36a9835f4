"""Counts of what is not stored: each line once, however often it is written."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from feature_store.change_log import MAX_FILES, ChangeLog
from feature_store.withheld_counts import NAME, Count, Summing, summed
from feature_store.withheld_purchases import withheld

ITEMS = st.dictionaries(
    st.sampled_from(["a", "b", "ü\n"]), st.tuples(st.just(1), st.integers(0, 9))
)


def test_many_files_become_few_and_count_the_same(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path)
    n_files = 3 * MAX_FILES
    for epoch in ("first", "second"):
        for number in range(n_files):
            body = {"items": {"a": [1, 2], f"i{number % 5}": [2, 3]}}
            log.write(NAME, epoch, [f"{number}-0"], [body])
            if number % 7 == 0:  # a round that was killed writes it again
                log.write(NAME, epoch, [f"{number}-0"], [body])
    assert len(log.files(NAME)) <= MAX_FILES
    assert sum(len(path.read_bytes().splitlines()) for path in log.files(NAME)) < n_files
    waiting = [
        ("second", f"{n_files - 1}-0", {"items": {"a": [1, 2]}}),  # not trimmed yet
        ("second", f"{n_files}-0", {"items": {"a": [1, 2], "new": [1, 1]}}),
    ]
    counts = withheld(log, waiting)
    assert counts["a"] == Count(2 * n_files + 1, 4 * n_files + 2)
    assert counts["new"] == Count(1, 1)
    assert sum(one.purchases for one in counts.values()) == 2 * n_files * 3 + 2
    assert withheld(ChangeLog(tmp_path / "nothing"), []) == {}


@given(st.lists(ITEMS, max_size=12), st.data())
def test_a_part_that_was_put_together_and_stayed_counts_once(
    bodies: list[dict[str, tuple[int, int]]], data: st.DataObject
) -> None:
    """Whoever is killed after the first file was replaced leaves the others beside it."""
    whole = Summing()
    for place, items in enumerate(bodies, start=1):
        whole.take("e", str(place), {"items": items})
    until = data.draw(st.integers(0, len(bodies)))
    again = data.draw(st.integers(0, until))
    part = Summing()
    for place, items in enumerate(bodies[:until], start=1):
        part.take("e", str(place), {"items": items})
    read = Summing()
    read.take_lines(summed(part.lines()))
    for place, items in enumerate(bodies[again:], start=again + 1):
        read.take("e", str(place), {"items": items})
    assert read.total() == whole.total()
    pieces: Counter[str] = Counter()
    for items in bodies:
        pieces.update({item_id: numbers[1] for item_id, numbers in items.items()})
    assert {item_id: one.pieces for item_id, one in read.total().items()} == dict(pieces)
