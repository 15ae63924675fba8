//! By how much a command makes the store larger is never said too small, or a limit would be none.

use crate::*;
use raftkv::kv::ITEM_BYTES;

proptest! {
    #[test]
    fn no_command_makes_the_store_larger_than_was_said(ops in prop::collection::vec(op(), 1..40)) {
        let mut store = Store::default();
        for (index, op) in (1..).zip(&ops) {
            let write = op.as_write();
            let at = Moment { index, now_ms: op.stamp() };
            let (before, growth) = (store.stored_bytes(), write.growth_bytes(&store));
            store.apply(write, at);
            prop_assert!(
                store.stored_bytes() <= before + growth,
                "{op:?}: {before} and {growth} bytes became {}", store.stored_bytes()
            );
        }
    }
}

#[test]
fn what_is_no_longer_than_before_makes_nothing_larger() {
    let mut store = Store::default();
    let at = Moment { index: 1, now_ms: 0 };
    assert_eq!(put("key", "value").growth_bytes(&store), 8 + ITEM_BYTES);
    store.apply(put("key", "value"), at);
    assert_eq!(store.stored_bytes(), 8 + ITEM_BYTES);
    assert_eq!(put("key", "other").growth_bytes(&store), 0);
    assert_eq!(put("key", "longer").growth_bytes(&store), 1);
    let append = WriteOp::Append { key: b"key", value: b"xy", bytes_max: 100 };
    assert_eq!(append.growth_bytes(&store), 2);
    store.apply(put("n", "8"), at);
    assert_eq!(increment("n", 1).growth_bytes(&store), 0);
    assert_eq!(increment("n", 2).growth_bytes(&store), 1);
    for op in [delete("key"), WriteOp::Flush] {
        assert_eq!(op.growth_bytes(&store), 0);
    }
}
