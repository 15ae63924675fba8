//! Reads of several keys, against the plainest way to say what they find.

use crate::*;
use raftkv::kv::{Budget, Failure, FailureCode, Found, Limits, Range, ReadOp, glob};
use std::rc::Rc;

/// The plainest matcher: tries everything.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'*', rest @ ..], text) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
        ([b'?', rest @ ..], [_, after @ ..]) => fits(rest, after),
        ([b'[', b'^', from, b'-', to, b']', rest @ ..], [byte, after @ ..]) => {
            !(*from..=*to).contains(byte) && fits(rest, after)
        }
        ([b'[', from, b'-', to, b']', rest @ ..], [byte, after @ ..]) => {
            (*from..=*to).contains(byte) && fits(rest, after)
        }
        ([byte, rest @ ..], [other, after @ ..]) => byte == other && fits(rest, after),
        _ => false,
    }
}

fn range(start: &str, end: Option<&str>) -> Range {
    Range {
        start: start.as_bytes().into(),
        end: end.map(|end| end.as_bytes().into()),
        reverse: false,
        pattern: None,
        with_values: false,
        keys_max: u32::MAX,
        partial: false,
    }
}

fn read(store: &Store, op: &ReadOp) -> Result<Found, Failure> {
    op.carry_out(store, &mut Budget::of(Limits::default().answer_bytes_max()), 0, 0)
}

fn carry_out(store: &Store, range: Range) -> (Vec<String>, Option<Rc<[u8]>>) {
    match read(store, &ReadOp::Range(range)) {
        Ok(Found::Keys { items, next }) => {
            let text = |item: &raftkv::kv::Value| String::from_utf8(item.to_vec()).expect("text");
            (items.iter().map(text).collect(), next)
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_pattern_fits_as_the_plainest_matcher_says(
        pieces in prop::collection::vec(
            prop::sample::select(vec!["*", "?", "a", "b", "[a-b]", "[^b-c]"]), 0..8),
        text in "[a-d]{0,10}",
    ) {
        let pattern = pieces.concat();
        let expected = fits(pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(glob::matches(pattern.as_bytes(), text.as_bytes()), expected, "{}", pattern);
    }

    /// Page by page the same keys as at once, each once.
    #[test]
    fn pages_make_up_the_whole(
        keys in prop::collection::btree_set("[ab]{0,4}", 0..30),
        keys_max in 1..10u32,
        start in "[ab]{0,2}",
        end in prop::option::of("[ab]{0,2}"),
    ) {
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        let store = store_of(&pairs);
        let whole = range(&start, end.as_deref());
        let expected: Vec<String> = keys
            .iter()
            .filter(|key| **key >= start && end.as_ref().is_none_or(|end| *key < end))
            .cloned()
            .collect();
        prop_assert_eq!(&carry_out(&store, whole.clone()).0, &expected);
        let mut reversed = carry_out(&store, Range { reverse: true, ..whole.clone() }).0;
        reversed.reverse();
        prop_assert_eq!(&reversed, &expected);
        let mut page = Range { keys_max, partial: true, ..whole };
        let mut found = Vec::new();
        loop {
            let (items, next) = carry_out(&store, page.clone());
            prop_assert!(items.len() <= keys_max as usize);
            found.extend(items);
            let Some(next) = next else { break };
            page.start = next;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_random_key_is_one_of_them(keys in prop::collection::btree_set("[a-d]{1,3}", 1..6)) {
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        let store = store_of(&pairs);
        for number in 0..20 {
            let key = store.random_key(number).expect("there are keys");
            prop_assert!(keys.contains(std::str::from_utf8(&key).expect("text")));
        }
    }
}

#[test]
fn a_pattern_with_many_stars_takes_no_more_than_the_product_of_lengths() {
    let text = vec![b'a'; 4096];
    let pattern = [b"a*".repeat(1000), b"b".to_vec()].concat();
    assert!(!glob::matches(&pattern, &text), "each star tried in all places would take for ever");
}

/// What would be too much for an answer is a page of a scan: it goes on, however little each page can hold.
#[test]
fn a_scan_goes_on_whatever_its_keys_cost() {
    let long = |last: char| format!("{}{last}", "k".repeat(4095));
    let (one, other) = (long('a'), long('b'));
    let value = "v".repeat(Limits::default().value_bytes_max as usize);
    let store = store_of(&[(one.as_str(), value.as_str()), (other.as_str(), value.as_str())]);
    let all = range("", None);
    let costly = "?*".repeat(2048).into_bytes();
    for (pattern, with_values) in [(Some(costly.as_slice()), false), (None, true)] {
        let whole = Range { pattern: pattern.map(Into::into), with_values, ..all.clone() };
        let too_much = read(&store, &ReadOp::Range(whole.clone()));
        assert_eq!(too_much.map_err(|failure| failure.code), Err(FailureCode::TooLarge));
        let mut page = Range { keys_max: 10, partial: true, ..whole.clone() };
        let (items, next) = carry_out(&store, page.clone());
        assert_eq!(items[0], one);
        page.start = next.expect("there is more");
        let (items, next) = carry_out(&store, page);
        assert_eq!((items[0] == other, next), (true, None));
        // The longest pair alone is not too much.
        let limited = Range { keys_max: 1, pattern: None, ..whole };
        assert_eq!(carry_out(&store, limited).0[0], one);
    }
}

#[test]
fn patterns_have_redis_s_corner_cases() {
    for (pattern, text, expected) in [
        (r"\*", "*", true),
        (r"\*", "a", false),
        ("[]a", "a", false),
        ("[a", "a", true),
        (r"[\]]", "]", true),
        ("[c-a]", "b", true),
        ("a*", "a", true),
        ("", "", true),
        ("", "a", false),
    ] {
        assert_eq!(
            glob::matches(pattern.as_bytes(), text.as_bytes()),
            expected,
            "{pattern} {text}"
        );
    }
}
