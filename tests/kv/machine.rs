//! Entries in, outcomes out: the same everywhere.

use crate::*;

/// An entry that is no command is said to be so, and is not taken for applied.
#[test]
fn an_entry_that_is_no_command_is_an_error_and_changes_nothing() {
    for bytes in [&[][..], &[9], &[1, 2, 3], &[0, 0]] {
        let mut machine = Machine::default();
        let entry = Entry { term: 1, index: 1, payload: Payload::Command(bytes.into()) };
        assert!(machine.apply(&entry).is_err(), "{bytes:?}");
        assert_eq!((machine.applied(), machine.store().len()), (0, 0));
    }
}

#[test]
#[should_panic(expected = "entries are applied in order, each once")]
fn an_entry_is_not_applied_twice() {
    let mut machine = Machine::default();
    let noop = Entry { term: 1, index: 1, payload: Payload::Noop };
    machine.apply(&noop).expect("a no-op");
    let _ = machine.apply(&noop);
}

/// Something for the log: sessions are opened, used, and used wrongly.
#[derive(Debug, Clone)]
pub enum Step {
    Noop,
    Open,
    Write(Option<(u64, u64)>, Op),
}

pub fn step() -> impl Strategy<Value = Step> {
    let request = prop::option::of((1u64..12, 0u64..4));
    prop_oneof![
        1 => Just(Step::Noop),
        2 => Just(Step::Open),
        6 => (request, op()).prop_map(|(request, op)| Step::Write(request, op)),
    ]
}

pub fn log_of(steps: &[Step]) -> Vec<Entry> {
    let entry = |(index, step): (Index, &Step)| match step {
        Step::Noop => Entry { term: 1, index, payload: Payload::Noop },
        Step::Open => entry(index, Command::OpenSession),
        Step::Write(request, op) => {
            let request = request.map(|(session, sequence)| RequestId { session, sequence });
            entry(index, Command::Write { request, op: op.as_write() })
        }
    };
    (1..).zip(steps).map(entry).collect()
}

proptest! {
    /// Two machines that are fed the same entries are the same at every index, outcomes included.
    #[test]
    fn the_same_entries_give_the_same_state_and_outcomes(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        let (mut one, mut two) = (Machine::default(), Machine::default());
        for entry in log_of(&steps) {
            prop_assert_eq!(one.apply(&entry), two.apply(&entry.clone()));
            prop_assert_eq!(one.store().digest(), two.store().digest());
        }
        prop_assert_eq!(format!("{one:?}"), format!("{two:?}"));
    }

    /// Every request of a session takes effect at most once: the state is that of the requests that
    /// were new, each carried out once, in their order.
    #[test]
    fn every_request_takes_effect_at_most_once(steps in prop::collection::vec(step(), 0..80)) {
        let mut machine = Machine::default();
        let mut model = Model::new();
        let mut newest: BTreeMap<u64, Option<(u64, Executed)>> = BTreeMap::new();
        for (entry, step) in log_of(&steps).iter().zip(&steps) {
            let executed = machine.apply(entry).expect("a command");
            let index = entry.index;
            let refused = |refusal| Executed { index, outcome: Outcome::Refused(refusal) };
            let expected = match step {
                Step::Noop => None,
                Step::Open => {
                    newest.insert(index, None);
                    Some(Executed { index, outcome: Outcome::SessionOpened { session: index } })
                }
                Step::Write(request, op) => Some(match request {
                    None => Executed { index, outcome: apply_to_model(&mut model, op) },
                    Some((session, sequence)) => match newest.get(session) {
                        None => refused(Refusal::UnknownSession),
                        Some(Some((last, first))) if last == sequence => first.clone(),
                        Some(Some((last, _))) if last > sequence => refused(Refusal::StaleSequence),
                        Some(_) => {
                            let outcome = apply_to_model(&mut model, op);
                            let executed = Executed { index, outcome };
                            newest.insert(*session, Some((*sequence, executed.clone())));
                            executed
                        }
                    },
                }),
            };
            prop_assert_eq!(executed, expected, "{:?}", step);
        }
        prop_assert_eq!(machine.store().len(), model.len());
        for (key, value) in &model {
            let held = machine.store().get(key);
            prop_assert_eq!(held.as_deref(), Some(value.as_slice()));
        }
    }
}
