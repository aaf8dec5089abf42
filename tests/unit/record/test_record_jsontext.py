"""Strict reading with the path of the culprit; the written forms byte by byte."""

from __future__ import annotations

import hashlib
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from record_samples import VECTOR_SHA256, VECTOR_TEXT, records, values

from homemgr.errors import InvalidRecord
from homemgr.record import jsontext


def refusal(text: str | bytes) -> str:
    with pytest.raises(InvalidRecord) as caught:
        jsontext.parse(text)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":{"b":[1,2.5]}}', ".a.b[1]: expected an integer"),
        ('{"a":1.0}', ".a: expected an integer"),
        ('{"a":[{},{"b":1e3}]}', ".a[1].b: expected an integer"),
        ('{"a":-0.0}', ".a: expected an integer"),
        ('{"a":NaN}', ".a: expected"),
        ('{"a":[-Infinity]}', ".a[0]: expected"),
        ('{"a":18446744073709551616}', ".a: expected an integer of -9223372036854775808"),
        ('{"a":-9223372036854775809}', ".a: expected an integer of -9223372036854775808"),
        ('{"a":' + "9" * 5000 + "}", ".a: expected an integer of"),
        ('{"a":1,"b":2,"a":1}', ".a: this key occurs twice"),
        ('{"a":[{"x":1,"x":1}]}', ".a[0].x: this key occurs twice"),
        ('{"a":1,"\\u0061":1}', ".a: this key occurs twice"),
        ('{"org.x":{"b c":1.5}}', '."org.x"."b c": expected an integer'),
        ('{"a":[{"b":"\x7f"}]}', ".a[0].b: the string holds"),
        ('{"a":"\\u007f"}', ".a: the string holds"),
        ('{"a":"\\u007F"}', ".a: the string holds"),
        ('{"a":"\\u0000"}', ".a: the string holds"),
        ('{"a":"\\ud800"}', ".a: the string holds"),
        ('{"a":"\\uDC00x"}', ".a: the string holds"),
        ('{"a":{"\\udc00":1}}', ".a: a key holds"),
        ('{"a\x7f":1}', ".: a key holds"),
        ("[1]", ".: expected an object, found an array"),
        ("null", ".: expected an object, found null"),
        ('"x"', ".: expected an object, found a string"),
        ("12", ".: expected an object, found a number"),
        ("true", ".: expected an object, found a boolean"),
        ("", ".: line 1, column 1:"),
        ("{", ".: line 1, column 2:"),
        ('{"a":1}x', ".: line 1, column 8:"),
        ('{"a":1,}', ".: line 1,"),
        ('{"a":01}', ".: line 1,"),
        ('{"a":"\n"}', ".: line 1, column 7:"),
        ("{'a':1}", ".: line 1,"),
        ("\ufeff{}", ".: line 1, column 1:"),
        (b"\xff\xfe", ".: expected UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', ".: expected UTF-8"),
        ('{"a":"\ud800"}', ".: expected UTF-8"),
    ],
)
def test_refusal_begins_with_the_path(text: str | bytes, message: str) -> None:
    assert refusal(text).startswith(message)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '{"a":' + "[" * 5000])
def test_deep_nesting_is_refused_not_followed(text: str) -> None:
    assert refusal(text).startswith(".: nested deeper")


def test_depth_limit_is_exact() -> None:
    deepest = '{"a":' + "[" * (jsontext.MAX_DEPTH - 1) + "]" * (jsontext.MAX_DEPTH - 1) + "}"
    assert jsontext.parse(deepest)
    one_more = '{"a":' + "[" * (jsontext.MAX_DEPTH + 1) + "]" * (jsontext.MAX_DEPTH + 1) + "}"
    assert "nested deeper than 64 levels" in refusal(one_more)


def test_wide_records_are_not_taken_for_deep_ones() -> None:
    assert jsontext.parse('{"a":[' + ",".join(["[]"] * 200) + "]}")


@pytest.mark.parametrize("item", ["0", "[]", "{}", "[[]]"])
def test_a_text_of_nothing_but_values_is_told_at_once(item: str) -> None:
    text = (
        '{"a":["\\u0041"'
        + f",{item}" * ((jsontext.MAX_RECORD_BYTES - 100) // (len(item) + 1))
        + "]}"
    )
    begun = time.process_time()
    assert refusal(text) == ".: expected at most 65536 values, found more."
    assert time.process_time() - begun < 0.1
    assert jsontext.parse('{"a":[' + ",".join(["0"] * 60_000) + "]}")


def test_size_limit_counts_bytes_not_characters() -> None:
    room = jsontext.MAX_RECORD_BYTES - len('{"a":""}')
    assert jsontext.parse('{"a":"' + "x" * room + '"}')
    assert refusal('{"a":"' + "x" * (room + 1) + '"}').startswith(".: expected at most 1048576")
    assert refusal('{"a":"' + "é" * (room // 2 + 1) + '"}').startswith(".: expected at most")


def test_refusal_and_broken_end_together_still_answer() -> None:
    assert refusal('{"a":1.5,').startswith(".: expected an integer")


def test_syntax_error_does_not_repeat_the_text() -> None:
    assert "hunter2" not in refusal('{"password":["hunter2"')


def test_long_keys_are_cut_in_messages() -> None:
    assert len(refusal('{"' + "k" * 10_000 + '":1.5}')) < 200


def outcome(text: str | bytes) -> jsontext.JsonObject | str:
    """What parsing gives: an object, or the message of the one failure it may have."""
    try:
        return jsontext.parse(text)
    except InvalidRecord as error:
        return error.message


@given(st.binary(max_size=200))
@example(b'{"a":"\\ud83c"}')
def test_random_bytes_give_an_object_or_invalid_record(raw: bytes) -> None:
    result = outcome(raw)
    assert isinstance(result, dict) or result.startswith(".")


# JSON's own alphabet finds deeper branches than random bytes.
_PIECES = ["{", "}", "[", "]", ":", ",", '"a"', '"b"', "1", "-0", "1.5", "1e9", "null", "true"]
_PIECES += ['"\\u007f"', '"\\ud800"', "NaN", "99999999999999999999", " ", "\x7f", '"']


@given(st.lists(st.sampled_from(_PIECES), max_size=30).map("".join))
def test_random_json_pieces_give_an_object_or_invalid_record(text: str) -> None:
    result = outcome(text)
    assert isinstance(result, dict) or result.startswith(".")
    if isinstance(result, dict):
        assert jsontext.parse(jsontext.compact(result)) is not None


def test_vector_of_homed_has_its_canonical_form() -> None:
    text = jsontext.canonical(jsontext.parse(VECTOR_TEXT))
    assert len(text) == 624
    assert text.startswith(b'{"Aupper":1,"_under":2,"a":4,"disposition":"regular",')
    assert text.endswith('"ékey":3}'.encode())
    assert hashlib.sha256(text).hexdigest() == VECTOR_SHA256


def test_canonical_leaves_out_the_unsigned_sections_only() -> None:
    record: jsontext.JsonObject = {
        "userName": "a", "secret": {}, "binding": {}, "status": {}, "signature": [],
        "privileged": {"secret": 1}, "perMachine": [{"status": 2}],
    }  # fmt: skip
    expected = b'{"perMachine":[{"status":2}],"privileged":{"secret":1},"userName":"a"}'
    assert jsontext.canonical(record) == expected


def test_control_characters_are_escaped_as_homed_does() -> None:
    text = jsontext.canonical({"a": "".join(map(chr, range(1, 0x20))) + '"\\/\u2028\u00e9'})
    assert text.decode() == (
        '{"a":"\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f'
        "\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016\\u0017\\u0018\\u0019\\u001a\\u001b\\u001c"
        '\\u001d\\u001e\\u001f\\"\\\\/\u2028\u00e9"}'
    )


@given(records())
def test_canonical_is_stable_over_every_written_form(record: jsontext.JsonObject) -> None:
    text = jsontext.canonical(record)
    assert jsontext.canonical(jsontext.parse(text)) == text
    assert jsontext.canonical(jsontext.parse(jsontext.pretty(record))) == text
    assert jsontext.canonical(jsontext.parse(jsontext.compact(record))) == text
    assert jsontext.canonical(jsontext.parse(json.dumps(record))) == text


@given(st.dictionaries(st.sampled_from("abc"), values))
def test_written_forms_read_back_as_the_same_value(record: jsontext.JsonObject) -> None:
    assert json.dumps(jsontext.parse(jsontext.compact(record))) == json.dumps(
        dict(sorted(record.items())), sort_keys=True
    )


def test_pretty_is_the_form_systemd_writes() -> None:
    # Byte for byte what userdbctl --output=json printed for this record.
    value: jsontext.JsonObject = {
        "userName": "vec",
        "num": [0, True, None],
        "empty": {},
        "none": [],
        "deep": [[], [{"b": 1, "a": "x/y"}]],
    }
    assert jsontext.pretty(value) == (
        "{\n"
        '\t"deep" : [\n'
        "\t\t[],\n"
        "\t\t[\n"
        "\t\t\t{\n"
        '\t\t\t\t"a" : "x/y",\n'
        '\t\t\t\t"b" : 1\n'
        "\t\t\t}\n"
        "\t\t]\n"
        "\t],\n"
        '\t"empty" : {},\n'
        '\t"none" : [],\n'
        '\t"num" : [\n'
        "\t\t0,\n"
        "\t\ttrue,\n"
        "\t\tnull\n"
        "\t],\n"
        '\t"userName" : "vec"\n'
        "}\n"
    )


def test_compact_sorts_objects_inside_arrays_and_keeps_array_order() -> None:
    # Defect 2 of homed 262: arrays of four or more elements that hold an unsorted
    # object get shuffled by it.
    value: jsontext.Json = {"l": [{"b": 1, "a": 2}, 4, 3, {"d": [], "c": {}}]}
    assert jsontext.compact(value) == '{"l":[{"a":2,"b":1},4,3,{"c":{},"d":[]}]}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, 1.5]}, ".a[1]: expected a JSON value without fractions, found float"),
        ({"a": {"b": b"x"}}, ".a.b: expected a JSON value without fractions, found bytes"),
        ({"a": 1 << 64}, ".a: expected an integer of"),
        ({"a": "\ud800"}, ".a: the string holds"),
        ({1: 2}, ".: expected keys to be strings"),
    ],
)
def test_built_values_are_judged_like_read_ones(value: jsontext.Json, message: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        jsontext.check_values(value)
    assert caught.value.message.startswith(message)


def test_keys_of_the_table_are_one_string_in_all_records() -> None:
    first, second = (jsontext.parse('{"hashedPassword":1}') for _ in range(2))
    assert next(iter(first)) is next(iter(second))


def test_keys_of_callers_are_not_kept() -> None:
    before = dict(jsontext._SHARED_KEYS)
    jsontext.parse('{"org.example.strange":1}')
    assert before == jsontext._SHARED_KEYS
