//! The store against a model, its digest, and integers.

use crate::*;
use raftkv::kv::parse_integer;
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64;

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

/// As many as make the store's table grow and shrink several times, in any order; and keys of which hundreds
/// fall into the same place of it.
#[test]
fn a_store_of_many_keys_is_what_a_map_is() {
    let number = |key: u64| format!("key:{key:05}").into_bytes();
    let crowded = |key: &Vec<u8>| xxh3_64(key).is_multiple_of(8192);
    let mut keys: Vec<Vec<u8>> = (0..20_000).map(number).collect();
    keys.extend((20_000..).map(number).filter(crowded).take(200));
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut store, mut model) = (Store::default(), BTreeMap::new());
    for (round, removed) in [10, 60, 5, 100].into_iter().enumerate() {
        rng.shuffle(&mut keys);
        for key in &keys {
            let value = rng.u32(..).to_string().into_bytes();
            if rng.u32(0..100) < removed {
                let existed = model.remove(key).is_some();
                assert_eq!(store.apply(WriteOp::Delete { key }, AT), Outcome::Deleted(existed));
            } else {
                store.apply(WriteOp::Put { key, value: &value }, AT);
                model.insert(key.clone(), value);
            }
        }
        assert_eq!(store.len(), model.len(), "round {round}");
        let items = store.range(b"", None).map(|(key, value)| (&**key, &**value));
        assert!(items.eq(model.iter().map(|(key, value)| (&**key, &**value))), "round {round}");
        for key in &keys {
            assert_eq!(store.get(key).as_deref(), model.get(key).map(|value| &**value));
        }
    }
    assert_eq!((store.len(), store.bytes(), store.digest()), (0, 0, 0));
}

/// Their hashes agree in all that the store's table keeps of them.
#[test]
fn two_keys_that_look_alike_to_the_table_are_two() {
    let mut known = HashMap::new();
    let number = |key: u64| format!("key:{key}").into_bytes();
    let pair = (0..).map(number).find_map(|key| {
        let other = known.insert(xxh3_64(&key) >> 32, key.clone())?;
        Some([key, other])
    });
    let [one, other] = pair.expect("two of some 100,000");
    for (first, second) in [(&one, &other), (&other, &one)] {
        let mut store = Store::default();
        store.apply(WriteOp::Put { key: first, value: b"1" }, AT);
        assert_eq!(store.get(second), None);
        store.apply(WriteOp::Put { key: second, value: b"2" }, AT);
        store.apply(WriteOp::Put { key: first, value: b"3" }, AT);
        assert_eq!(store.get(first).as_deref(), Some(&b"3"[..]));
        assert_eq!(store.get(second).as_deref(), Some(&b"2"[..]));
        assert_eq!(store.apply(WriteOp::Delete { key: first }, AT), Outcome::Deleted(true));
        assert_eq!(store.get(first), None);
        assert_eq!(store.get(second).as_deref(), Some(&b"2"[..]));
    }
}
