//! The newest changes of the store: that they lead to its contents, and how many are kept.

use crate::machine::{Step, log_of, step};
use crate::transactions::{read, run};
use crate::*;
use raftkv::kv::{
    ChangeRef, FreeBudget, HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX, Loader, STEP_ANSWER_BYTES,
};
use std::collections::BTreeMap;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a subscriber makes of a stream.
fn replay(model: &mut Pairs, change: ChangeRef<'_>) {
    match change {
        ChangeRef::Set { key, value } => drop(model.insert(key.to_vec(), value.to_vec())),
        ChangeRef::Deleted { key } => drop(model.remove(key)),
        ChangeRef::Flushed => model.clear(),
    }
}

fn contents(store: &Store) -> Pairs {
    store.range(b"", None).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn put_at(machine: &mut Machine, key: &str, value: &[u8]) -> Index {
    let op = WriteOp::Put { key: key.as_bytes(), value };
    apply(machine, Command::Write { request: None, op }).index
}

fn indices(machine: &Machine, from: Index) -> Vec<Index> {
    let batches = machine.store().changes_since(from).expect("nothing is forgotten");
    batches.map(|batch| batch.index).collect()
}

/// Index after index, in words.
fn all(machine: &Machine) -> Vec<String> {
    let word = |change: ChangeRef<'_>| match change {
        ChangeRef::Set { key, value } => {
            format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
        }
        ChangeRef::Deleted { key } => format!("-{}", String::from_utf8_lossy(key)),
        ChangeRef::Flushed => "flushed".to_owned(),
    };
    let batches =
        machine.store().changes_since(machine.history().first()).expect("from the first on");
    batches
        .map(|batch| {
            let words: Vec<String> = batch.changes().map(word).collect();
            format!("{} {}", batch.index, words.join(","))
        })
        .collect()
}

#[test]
fn only_effects_are_kept_and_all_those_of_an_entry_together() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let pairs = Blobs::to_bytes([&b"a"[..], b"1", b"b", b"2", b"a", b"3"]);
    let keys = Blobs::to_bytes([&b"a"[..], b"none", b"b"]);
    let first = Some(RequestId { session, sequence: 1 });
    for command in [
        Command::Write { request: None, op: cas("a", Some("1"), "2") },
        Command::Write { request: None, op: delete("none") },
        Command::Write { request: first, op: increment("n", 5) },
        Command::Write { request: first, op: increment("n", 5) },
        Command::Write { request: None, op: put("text", "x") },
        Command::Write { request: None, op: increment("text", 1) },
        Command::Write {
            request: None,
            op: WriteOp::PutMany { pairs: Blobs::new(&pairs).expect("pairs") },
        },
        Command::Write {
            request: None,
            op: WriteOp::Append { key: b"a", value: b"4", bytes_max: 10 },
        },
        Command::Write {
            request: None,
            op: WriteOp::DeleteMany { keys: Blobs::new(&keys).expect("keys") },
        },
    ] {
        apply(&mut machine, command);
    }
    let noop = Entry { term: 1, index: machine.applied() + 1, payload: Payload::Noop };
    machine.apply(&noop).expect("a no-op");
    assert_eq!(all(&machine), ["4 n=5", "6 text=x", "8 a=1,b=2,a=3", "9 a=34", "10 -a,-b"]);
    assert_eq!(indices(&machine, 9), [9, 10]);
    assert_eq!(indices(&machine, 7), [8, 9, 10], "an index without changes is no gap");
    assert_eq!(indices(&machine, 1000), [0; 0], "nothing of the future");
}

#[test]
fn the_oldest_go_when_there_are_too_many_and_it_says_so() {
    let mut machine = Machine::default();
    let last = HISTORY_CHANGES_MAX as Index + 10;
    for number in 1..=last {
        assert_eq!(put_at(&mut machine, "k", number.to_string().as_bytes()), number);
        assert!(machine.history().len() <= HISTORY_CHANGES_MAX);
    }
    let history = machine.history();
    let first = history.first();
    // They go by pages of 16 KiB.
    assert!((11..1000).contains(&first), "{first}");
    let compacted = machine.store().changes_since(first - 1).err().expect("it is forgotten");
    assert_eq!(compacted.first, first);
    assert!(indices(&machine, first).into_iter().eq(first..=last));
    assert_eq!(history.len() as Index, last + 1 - first);
}

#[test]
fn the_oldest_go_when_they_are_too_long() {
    let mut machine = Machine::default();
    let value = vec![0; 1024 * 1024];
    for _ in 0..20 {
        put_at(&mut machine, "k", &value);
        assert!(machine.history().bytes() <= HISTORY_BYTES_MAX);
    }
    assert_eq!((machine.history().len(), machine.history().first()), (7, 14));
}

#[test]
fn a_value_longer_than_all_of_the_history_is_kept_alone() {
    let mut machine = Machine::default();
    put_at(&mut machine, "before", b"1");
    let long = put_at(&mut machine, "k", &vec![0; 2 * HISTORY_BYTES_MAX]);
    assert_eq!(indices(&machine, long), [long]);
    assert_eq!((machine.history().len(), machine.history().first()), (1, long));
    let after = put_at(&mut machine, "after", b"1");
    assert_eq!(indices(&machine, after), [after]);
    assert_eq!(machine.history().first(), after);
    assert!(machine.history().bytes() <= 16 * 1024);
}

fn append_at(machine: &mut Machine, key: &str, value: &[u8]) -> Index {
    let op = WriteOp::Append { key: key.as_bytes(), value, bytes_max: u32::MAX };
    apply(machine, Command::Write { request: None, op }).index
}

fn delete_at(machine: &mut Machine, key: &str) -> Index {
    apply(machine, Command::Write { request: None, op: delete(key) }).index
}

/// The values of the only key, change by change.
fn lengths(machine: &Machine, from: Index) -> Vec<usize> {
    let batches = machine.store().changes_since(from).expect("nothing is forgotten");
    let length = |change: ChangeRef<'_>| match change {
        ChangeRef::Set { value, .. } => value.len(),
        ChangeRef::Deleted { .. } | ChangeRef::Flushed => 0,
    };
    batches.flat_map(|batch| batch.changes().map(length).collect::<Vec<_>>()).collect()
}

const MIB: usize = 1024 * 1024;

#[test]
fn appends_to_a_long_value_are_remembered_without_a_copy_of_it_each() {
    let mut machine = Machine::default();
    put_at(&mut machine, "k", &vec![b'x'; MIB]);
    let first = append_at(&mut machine, "k", b"0");
    for _ in 1..10_000 {
        append_at(&mut machine, "k", b"1");
    }
    assert!(machine.history().bytes() < 3 * MIB, "{}", machine.history().bytes());
    let lengths = lengths(&machine, first);
    assert!(lengths.into_iter().eq((1..=10_000).map(|appended| MIB + appended)));
}

#[test]
fn what_a_value_was_is_told_also_after_it_has_been_replaced_deleted_or_flushed() {
    let replace: [fn(&mut Machine) -> usize; 3] = [
        |machine| {
            put_at(machine, "k", b"new");
            3
        },
        |machine| {
            delete_at(machine, "k");
            0
        },
        |machine| {
            apply(machine, Command::Write { request: None, op: WriteOp::Flush });
            0
        },
    ];
    for replace in replace {
        let mut machine = Machine::default();
        put_at(&mut machine, "k", &vec![b'x'; MIB]);
        let first = append_at(&mut machine, "k", b"12");
        let mut expected = vec![MIB + 2];
        for round in 0..3 {
            let then = replace(&mut machine);
            put_at(&mut machine, "k", &vec![b'y'; MIB / 2]);
            append_at(&mut machine, "k", &vec![b'z'; round]);
            expected.extend([then, MIB / 2, MIB / 2 + round]);
        }
        machine.free_some(FreeBudget::ALL);
        assert_eq!(lengths(&machine, first), expected);
        assert!(machine.history().bytes() <= HISTORY_BYTES_MAX);
    }
}

#[test]
fn buffers_that_only_the_history_holds_count_and_are_forgotten_with_their_changes() {
    let mut machine = Machine::default();
    for round in 0..100 {
        put_at(&mut machine, "k", &vec![b'x'; MIB]);
        append_at(&mut machine, "k", b"1");
        let last = delete_at(&mut machine, "k");
        machine.free_some(FreeBudget::ALL);
        let history = machine.history();
        assert!(history.bytes() <= HISTORY_BYTES_MAX + MIB, "{round}: {}", history.bytes());
        assert!(last - history.first() < 3 * 8, "{round}");
    }
    assert_eq!(machine.store().garbage_items(), 0);
}

/// Two thousand megabytes must not stay in memory because they were appended to.
#[test]
fn a_flush_of_more_buffers_than_the_history_may_hold_leaves_none() {
    let mut machine = Machine::default();
    for key in 0..100 {
        put_at(&mut machine, &key.to_string(), &vec![b'x'; MIB / 4]);
        append_at(&mut machine, &key.to_string(), b"1");
    }
    let flushed = apply(&mut machine, Command::Write { request: None, op: WriteOp::Flush }).index;
    assert_eq!((machine.history().bytes(), machine.history().first()), (0, flushed + 1));
}

/// Half of what an entry has done must not be taken for all of it.
#[test]
fn an_entry_with_more_changes_than_are_kept_leaves_none() {
    let mut machine = Machine::default();
    put_at(&mut machine, "before", b"1");
    let keys: Vec<String> = (0..=HISTORY_CHANGES_MAX).map(|number| number.to_string()).collect();
    let pairs = Blobs::to_bytes(keys.iter().flat_map(|key| [key.as_bytes(), b""]));
    let op = WriteOp::PutMany { pairs: Blobs::new(&pairs).expect("pairs") };
    let many = apply(&mut machine, Command::Write { request: None, op }).index;
    assert_eq!(machine.store().changes_since(many).err().map(|it| it.first), Some(many + 1));
    assert_eq!((machine.history().len(), machine.history().bytes()), (0, 0));
    let after = put_at(&mut machine, "after", b"1");
    assert_eq!(indices(&machine, many + 1), [after]);
}

/// Also where they began a page, filled some, and had made others go.
#[test]
fn what_a_transaction_did_is_gone_from_it_when_it_is_taken_back() {
    for (before, filler) in [(0, 10), (3, 10), (3, 9000), (0, 20_000), (20_000, 3000)] {
        let mut machine = Machine::default();
        for _ in 0..before {
            put_at(&mut machine, "before", &[b'x'; 500]);
        }
        let kept = machine.history().first();
        let old = all(&machine);
        let value = vec![b'y'; filler];
        let sets = (0..1000).map(|_| Part::Write(Op::Put(b"k".to_vec(), value.clone())));
        let answers_max = (1000 * STEP_ANSWER_BYTES) as u32;
        let refused = run(&mut machine, &[], answers_max, sets.chain([read(&["k"])]).collect());
        assert_eq!(refused, Outcome::Refused(Refusal::TransactionTooLarge));
        let now = all(&machine);
        assert!(machine.history().first() >= kept);
        assert!(old.ends_with(&now), "{before} before, {filler} bytes each: {now:?}");
        let after = put_at(&mut machine, "after", b"1");
        assert_eq!(indices(&machine, after), [after]);
        assert_eq!(all(&machine).len(), now.len() + 1);
    }
}

#[test]
fn after_a_snapshot_it_begins_anew() {
    let mut machine = Machine::default();
    put_at(&mut machine, "a", b"1");
    let last = put_at(&mut machine, "b", b"2");
    machine.begin_snapshot();
    let mut loader = Loader::default();
    loop {
        let (piece, is_last) = machine.snapshot_piece(10);
        loader.feed(&piece).expect("a sound piece");
        if is_last {
            break;
        }
    }
    let mut loaded = loader.finish().expect("all of it");
    assert_eq!((loaded.history().first(), loaded.history().len()), (last + 1, 0));
    let next = put_at(&mut loaded, "c", b"3");
    assert_eq!(all(&loaded), [format!("{next} c=3")]);
    assert!(loaded.store().changes_since(last).is_err());
}

proptest! {
    /// Whoever replays the changes has the store, also if it goes on anywhere in between; each index is
    /// there once, and only if its entry changed something.
    #[test]
    fn replayed_from_anywhere_it_leads_to_the_store(
        steps in prop::collection::vec(step(), 0..80),
        cut in 0usize..80,
    ) {
        let log = log_of(&steps);
        let cut = cut.min(log.len());
        let mut machine = Machine::default();
        let mut at_cut = Pairs::new();
        for (done, entry) in log.iter().enumerate() {
            if done == cut {
                at_cut = contents(machine.store());
            }
            let before = contents(machine.store());
            machine.apply(entry).expect("a command");
            let changed = indices(&machine, entry.index) == [entry.index];
            prop_assert!(changed || before == contents(machine.store()));
            prop_assert!(!changed || matches!(steps[done], Step::Write(..)));
        }
        if cut == log.len() {
            at_cut = contents(machine.store());
        }
        let mut model = Pairs::new();
        let mut last = 0;
        for batch in machine.store().changes_since(0).expect("from the beginning") {
            prop_assert!(batch.index > last && batch.changes().count() > 0);
            last = batch.index;
            batch.changes().for_each(|change| replay(&mut model, change));
        }
        prop_assert_eq!(&model, &contents(machine.store()));
        for batch in machine.store().changes_since(cut as Index + 1).expect("from there on") {
            batch.changes().for_each(|change| replay(&mut at_cut, change));
        }
        prop_assert_eq!(&at_cut, &contents(machine.store()));
    }
}
