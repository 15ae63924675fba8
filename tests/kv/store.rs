//! The store against a model, its digest, and integers.

use crate::*;
use raftkv::kv::parse_integer;

#[test]
fn put_writes_and_replaces() {
    let mut store = Store::default();
    assert_eq!(get(&store, "a"), None);
    for value in ["1", "22", ""] {
        assert_eq!(store.apply(put("a", value), AT), Outcome::Put);
        assert_eq!(get(&store, "a").as_deref(), Some(value));
        assert_eq!((store.len(), store.bytes()), (1, 1 + value.len()));
    }
}

#[test]
fn delete_says_whether_the_key_existed() {
    let mut store = store_of(&[("a", "1")]);
    assert_eq!(store.apply(delete("a"), AT), Outcome::Deleted(true));
    assert_eq!(store.apply(delete("a"), AT), Outcome::Deleted(false));
    assert_eq!((store.is_empty(), store.bytes(), store.digest()), (true, 0, 0));
}

#[test]
fn compare_and_set_writes_only_over_the_expected_value() {
    let cases = [
        (None, None, true),
        (None, Some("1"), false),
        (None, Some(""), false),
        (Some("1"), None, false),
        (Some("1"), Some("1"), true),
        (Some("1"), Some("2"), false),
        (Some(""), Some(""), true),
        (Some(""), None, false),
    ];
    for (held, expected, swapped) in cases {
        let mut store = Store::default();
        if let Some(held) = held {
            store.apply(put("a", held), AT);
        }
        let outcome = store.apply(cas("a", expected, "new"), AT);
        assert_eq!(outcome, Outcome::Swapped(swapped), "{held:?} expected {expected:?}");
        let value = if swapped { Some("new") } else { held };
        assert_eq!(get(&store, "a").as_deref(), value);
    }
}

#[test]
fn increment_counts_from_zero_and_in_both_directions() {
    let mut store = Store::default();
    for (delta, counter) in [(5, 5), (-7, -2), (0, -2), (i64::MAX, i64::MAX - 2), (2, i64::MAX)] {
        assert_eq!(store.apply(increment("a", delta), AT), Outcome::Counter(counter));
        assert_eq!(get(&store, "a"), Some(counter.to_string()));
    }
}

/// What cannot be incremented stays as it is.
#[test]
fn increment_refuses_text_and_overflow() {
    let cases = [
        ("x", 1, Refusal::NotAnInteger),
        ("", 0, Refusal::NotAnInteger),
        ("1.5", 1, Refusal::NotAnInteger),
        ("9223372036854775808", -1, Refusal::NotAnInteger),
        ("9223372036854775807", 1, Refusal::Overflow),
        ("-9223372036854775808", -1, Refusal::Overflow),
        ("-1", i64::MIN, Refusal::Overflow),
    ];
    for (value, delta, refusal) in cases {
        let mut store = store_of(&[("a", value)]);
        let digest = store.digest();
        assert_eq!(store.apply(increment("a", delta), AT), Outcome::Refused(refusal), "{value}");
        assert_eq!((get(&store, "a").as_deref(), store.digest()), (Some(value), digest));
    }
}

/// As Redis reads them (`string2ll`): the one way an integer is printed, and no other.
#[test]
fn integers_are_read_as_redis_reads_them() {
    let integers = ["0", "1", "-1", "10", "-90", "9223372036854775807", "-9223372036854775808"];
    for text in integers {
        assert_eq!(parse_integer(text.as_bytes()), text.parse().ok(), "{text}");
    }
    let others = [
        "",
        " ",
        "-",
        "+",
        "+1",
        "-0",
        "00",
        "01",
        "-01",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1e3",
        "0x10",
        "--1",
        "1_000",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
        "\u{661}",
        "1\0",
    ];
    for text in others {
        assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(parse_integer(&[0xff, b'1']), None);
}

/// Equal contents have equal digests, whatever came before; different ones do not.
#[test]
fn the_digest_is_that_of_the_contents() {
    let digest = |pairs: &[(&str, &str)]| store_of(pairs).digest();
    let ab = digest(&[("a", "1"), ("b", "2")]);
    assert_eq!(ab, digest(&[("b", "2"), ("a", "1")]));
    assert_eq!(ab, digest(&[("a", "2"), ("b", "1"), ("a", "1"), ("b", "2")]));
    for other in [
        &[("a", "2"), ("b", "1")][..],
        &[("a", "1")],
        &[("a", "1"), ("b", "2"), ("c", "")],
        &[("ab", "12")],
        &[("a1", ""), ("b2", "")],
        &[],
    ] {
        assert_ne!(ab, digest(other), "{other:?}");
    }
    assert_ne!(digest(&[("a", "b")]), digest(&[("b", "a")]));
    assert_ne!(digest(&[("a", "a")]), digest(&[]));
    assert_eq!(digest(&[]), 0, "that of the empty store");
}

proptest! {
    /// Against the model, and the digest and the size kept up with every change against those
    /// computed anew from the contents.
    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 0..60)) {
        let mut machine = Machine::default();
        let mut model = Model::default();
        for op in &ops {
            let index = machine.applied() + 1;
            let executed = apply(&mut machine, Command::Write { request: None, op: op.as_write() });
            prop_assert_eq!(executed.outcome, model.apply(op, index), "{:?}", op);
            let store = machine.store();
            assert_same(store, &model);
            prop_assert_eq!(machine.clock_ms(), model.clock);
            let mut anew = Store::default();
            for (key, known) in model.keys.iter().rev() {
                let expiry = known.expires_at.map_or(Expiry::Never, |at| Expiry::At(at as i64));
                let op = Op::SetUntil(0, key.clone(), known.value.clone(), When::Always, false, expiry);
                anew.apply(op.as_write(), Moment { index: 1, now_ms: 0 });
            }
            prop_assert_eq!(store.digest(), anew.digest());
        }
    }

    #[test]
    fn any_integer_is_read_back(integer in any::<i64>()) {
        prop_assert_eq!(parse_integer(integer.to_string().as_bytes()), Some(integer));
    }

    /// What is read is printed the same.
    #[test]
    fn only_the_printed_form_is_an_integer(text in "[-+ 0-9]{0,21}") {
        if let Some(integer) = parse_integer(text.as_bytes()) {
            prop_assert_eq!(integer.to_string(), text);
        }
    }
}
