"""Extensions merge as deep as possible, together no more than a home can take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.extension import hierarchies
from homemgr.extension.hierarchies import Entry, Offer, offered, union, within_limits

#: A directory is a dictionary, a file is None.
Tree = dict[str, "Tree | None"]


def offer_of(tree: Tree) -> Offer:
    def contents(path: str, limit: int) -> list[Entry]:
        here: Tree | None = tree
        for name in path.split("/") if path else ():
            assert here is not None
            here = here[name]
        assert here is not None
        return [Entry(name, below is not None) for name, below in here.items()][:limit]

    return offered(contents)


def test_one_way_down_is_followed_to_its_end() -> None:
    tree: Tree = {".local": {"share": {"applications": {"a.desktop": None}}}}
    assert offer_of(tree).hierarchies == (".local/share/applications",)


def test_a_fork_stops_the_way_down() -> None:
    tree: Tree = {".local": {"share": {"x": None}, "bin": {"y": None}}, ".config": {"corp": {}}}
    assert offer_of(tree).hierarchies == (".config/corp", ".local")


def test_a_file_stops_the_way_down() -> None:
    assert offer_of({"a": {"b": {"file": None}}, "c": {"d": None}}).hierarchies == ("a/b", "c")


def test_what_cannot_be_merged_is_said() -> None:
    tree: Tree = {".bashrc": None, ".identity": None, ".homemgr": {"x": {}}, "bad\nname": {}}
    tree |= {"\udcff": {}, "good": {}}
    offer = offer_of(tree)
    assert offer.hierarchies == ("good",)
    assert offer.unmergeable == (".bashrc", ".homemgr", ".identity", "bad\\nname", "\\udcff")


def test_a_strange_name_below_is_reached_through_its_parent() -> None:
    assert offer_of({"a": {"b\n": {"c": None}}}).hierarchies == ("a",)


def test_a_very_deep_tree_is_merged_where_the_limit_is() -> None:
    tree: Tree = {}
    for _ in range(100):
        tree = {"d": tree}
    (path,) = offer_of(tree).hierarchies
    assert path.count("/") == hierarchies.DEPTH_LIMIT


def test_a_crowd_at_the_top_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1024 names"):
        offer_of({str(n): None for n in range(1025)})


def test_nested_ones_are_part_of_their_ancestor() -> None:
    offers = [(".local/share/a", ".config"), (".local", ".localx"), (".local/bin", ".config-b")]
    assert union(offers) == (".config", ".config-b", ".local", ".localx")


PATHS = st.lists(st.text("ab.", min_size=1, max_size=2), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.lists(PATHS)))
def test_a_union_covers_everything_once(offers: list[list[str]]) -> None:
    merged = union(offers)
    for offer in offers:
        for path in offer:
            assert sum(f"{path}/".startswith(f"{m}/") for m in merged) == 1
    assert set(merged) <= {path for offer in offers for path in offer}


def test_too_many_hierarchies_leave_out_who_brings_them() -> None:
    many = [f"a{n}" for n in range(60)]
    taken, reasons = within_limits({"a": many, "b": ["b1", "b2", "b3", "b4", "b5"], "c": ["c"]})
    assert taken == (*sorted(many), "c")
    assert reasons == {
        "b": "With extension b the home would have 65 merged directories; the limit is 64."
    }


def test_too_long_paths_leave_out_who_brings_them() -> None:
    long = ["/".join(["d" * 250] * 32) + str(n) for n in range(9)]
    taken, reasons = within_limits({"a": long, "b": ["b"]})
    assert taken == ("b",)
    assert "bytes; the limit is 65536" in reasons["a"]


def test_limits_of_the_stack_are_explained() -> None:
    assert hierarchies.too_deep("a", 0) == hierarchies.too_deep("a", 1) == ""
    assert "the kernel allows 2" in hierarchies.too_deep("a", 2)
    assert hierarchies.too_many_layers(".local", 498) == ""
    assert hierarchies.too_many_layers(".local", 499) == (
        "499 extensions would be merged into .local; the limit is 498."
    )
