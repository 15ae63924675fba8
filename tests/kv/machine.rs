//! Entries in, outcomes out: the same everywhere.

use crate::*;

/// An entry that is no command is said to be so, and is not taken for applied.
#[test]
fn an_entry_that_is_no_command_is_an_error_and_changes_nothing() {
    for bytes in [&[][..], &[9], &[1, 2, 3], &[0, 0], &[15], &[13; 17]] {
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
        let mut model = Model::default();
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
                    None => Executed { index, outcome: model.apply(op, index) },
                    Some((session, sequence)) => match newest.get(session) {
                        None => refused(Refusal::UnknownSession),
                        Some(Some((last, first))) if last == sequence => first.clone(),
                        Some(Some((last, _))) if last > sequence => refused(Refusal::StaleSequence),
                        Some(_) => {
                            let executed = Executed { index, outcome: model.apply(op, index) };
                            newest.insert(*session, Some((*sequence, remembered(&executed))));
                            executed
                        }
                    },
                }),
            };
            prop_assert_eq!(executed, expected, "{:?}", step);
        }
        assert_same(machine.store(), &model);
    }
}

/// What a session keeps of an outcome: not one with long values.
fn remembered(executed: &Executed) -> Executed {
    let bytes = match &executed.outcome {
        Outcome::Changed { old: Some(old), .. } => old.len(),
        Outcome::Transaction(Some(steps)) => steps.iter().map(|step| 16 + answer_bytes(step)).sum(),
        _ => 0,
    };
    let is_long = bytes > SESSION_VALUE_BYTES_MAX;
    let forgotten = Outcome::Refused(Refusal::AnswerForgotten);
    let outcome = if is_long { forgotten } else { executed.outcome.clone() };
    Executed { outcome, ..executed.clone() }
}
