//! The newest changes of the store: that they lead to its contents, and how many are kept.

use crate::machine::{Step, log_of, step};
use crate::transactions::{read, run};
use crate::*;
use raftkv::kv::{ChangeRef, HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX, Loader, STEP_ANSWER_BYTES};
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
    let batches = machine.history().since(from).expect("nothing is forgotten");
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
    let batches = machine.history().since(machine.history().first()).expect("from the first on");
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
    let compacted = history.since(first - 1).err().expect("it is forgotten");
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

/// Half of what an entry has done must not be taken for all of it.
#[test]
fn an_entry_with_more_changes_than_are_kept_leaves_none() {
    let mut machine = Machine::default();
    put_at(&mut machine, "before", b"1");
    let keys: Vec<String> = (0..=HISTORY_CHANGES_MAX).map(|number| number.to_string()).collect();
    let pairs = Blobs::to_bytes(keys.iter().flat_map(|key| [key.as_bytes(), b""]));
    let op = WriteOp::PutMany { pairs: Blobs::new(&pairs).expect("pairs") };
    let many = apply(&mut machine, Command::Write { request: None, op }).index;
    assert_eq!(machine.history().since(many).err().map(|it| it.first), Some(many + 1));
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
    assert!(loaded.history().since(last).is_err());
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
        for batch in machine.history().since(0).expect("from the beginning") {
            prop_assert!(batch.index > last && batch.changes().count() > 0);
            last = batch.index;
            batch.changes().for_each(|change| replay(&mut model, change));
        }
        prop_assert_eq!(&model, &contents(machine.store()));
        for batch in machine.history().since(cut as Index + 1).expect("from there on") {
            batch.changes().for_each(|change| replay(&mut at_cut, change));
        }
        prop_assert_eq!(&at_cut, &contents(machine.store()));
    }
}
