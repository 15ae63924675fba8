//! What the main job has written, and what it may therefore read. Pure.
//!
//! Value `n` always goes to key number `(n - 1) mod 26`: a = 1, b = 2, ... z = 26, a = 27. So the largest
//! value in the store says how to go on after a restart.

use std::collections::BTreeMap;

/// Letters of the alphabet: the main job's keys are bounded, its values rise.
const KEYS: u64 = 26;

/// What a key may hold: one value, or several after writes of unknown outcome. `None` is no value at all.
type Possible = Vec<Option<Vec<u8>>>;

#[derive(Debug)]
pub struct Ledger {
    prefix: String,
    next_value: u64,
    /// Keys that were written or read in this run. Of the others, anything may be read.
    known: BTreeMap<String, Possible>,
}

/// A read that can't be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub expected: Vec<Option<Vec<u8>>>,
    pub read: Option<Vec<u8>>,
}

impl Ledger {
    /// `prefix` is put before each key, so that several clients can run side by side.
    pub fn new(prefix: &str) -> Self {
        Ledger { prefix: prefix.to_owned(), next_value: 1, known: BTreeMap::new() }
    }

    /// All keys that this ledger ever writes.
    pub fn keys(&self) -> Vec<String> {
        (1..=KEYS).map(|value| self.key_of(value)).collect()
    }

    fn key_of(&self, value: u64) -> String {
        let letter = b'a' + u8::try_from((value - 1) % KEYS).expect("below 26");
        format!("{}{}", self.prefix, char::from(letter))
    }

    /// The next key and value to write.
    pub fn next_write(&self) -> (String, u64) {
        (self.key_of(self.next_value), self.next_value)
    }

    /// A key's value as found at the start, from an earlier run or anybody else. Values that this program
    /// does not write are of no interest.
    pub fn found(&mut self, value: &[u8]) {
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        // The limit leaves room to go on counting for ever after somebody's "18446744073709551615".
        if let Some(number) = number.filter(|number| *number < u64::MAX / 2) {
            self.next_value = self.next_value.max(number + 1);
        }
    }

    /// The write of [`Ledger::next_write`] is done.
    pub fn written(&mut self) {
        let (key, value) = self.next_write();
        self.known.insert(key, vec![Some(value.to_string().into_bytes())]);
        self.next_value += 1;
    }

    /// Nobody can say whether the write of [`Ledger::next_write`] was or will be done: until the next
    /// read the key may hold what it held, or the new value.
    pub fn perhaps_written(&mut self) {
        let (key, value) = self.next_write();
        // Of a key that this run knows nothing of, anything may be read anyway.
        if let Some(possible) = self.known.get_mut(&key) {
            possible.push(Some(value.to_string().into_bytes()));
        }
        self.next_value += 1;
    }

    /// Compares what was read with what may be read, and remembers it: what was read once must be read
    /// again until the next write.
    pub fn check(&mut self, key: &str, read: Option<&[u8]>) -> Result<(), Mismatch> {
        let read = read.map(<[u8]>::to_vec);
        match self.known.get(key) {
            Some(possible) if !possible.contains(&read) => {
                Err(Mismatch { expected: possible.clone(), read })
            }
            _ => {
                self.known.insert(key.to_owned(), vec![read]);
                Ok(())
            }
        }
    }

    /// The keys whose values this run can judge.
    pub fn known_keys(&self) -> Vec<String> {
        self.known.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_through(ledger: &mut Ledger, count: usize) {
        for _ in 0..count {
            ledger.written();
        }
    }

    #[test]
    fn keys_cycle_and_values_rise() {
        let mut ledger = Ledger::new("");
        assert_eq!(ledger.next_write(), ("a".into(), 1));
        write_through(&mut ledger, 25);
        assert_eq!(ledger.next_write(), ("z".into(), 26));
        write_through(&mut ledger, 1);
        assert_eq!(ledger.next_write(), ("a".into(), 27));
    }

    #[test]
    fn the_prefix_goes_before_every_key() {
        let ledger = Ledger::new("pod1.");
        assert_eq!(ledger.next_write().0, "pod1.a");
        assert_eq!(ledger.keys().len(), 26);
        assert_eq!(ledger.keys()[25], "pod1.z");
    }

    #[test]
    fn a_value_that_was_not_written_is_a_mismatch() {
        let mut ledger = Ledger::new("");
        write_through(&mut ledger, 1);
        assert_eq!(ledger.check("a", Some(b"1")), Ok(()));
        let wrong = ledger.check("a", Some(b"0")).unwrap_err();
        assert_eq!(wrong.expected, [Some(b"1".to_vec())]);
        assert_eq!(wrong.read, Some(b"0".to_vec()));
        assert!(ledger.check("a", None).is_err());
    }

    #[test]
    fn an_unknown_outcome_allows_both_until_a_read_resolves_it() {
        for (seen, lost) in [(&b"1"[..], &b"27"[..]), (b"27", b"1")] {
            let mut ledger = Ledger::new("");
            write_through(&mut ledger, 26);
            ledger.perhaps_written();
            assert!(ledger.check("a", Some(b"2")).is_err());
            assert_eq!(ledger.check("a", Some(seen)), Ok(()));
            assert!(ledger.check("a", Some(lost)).is_err(), "resolved: only {seen:?} is left");
        }
    }

    #[test]
    fn the_first_write_may_be_lost_over_whatever_was_there() {
        let mut ledger = Ledger::new("");
        ledger.perhaps_written();
        assert_eq!(ledger.check("a", None), Ok(()));
        assert!(ledger.check("a", Some(b"1")).is_err());
    }

    #[test]
    fn a_restart_goes_on_after_the_largest_value() {
        let mut ledger = Ledger::new("");
        for value in ["27", "2", "26", "hello", "", "99999999999999999999"] {
            ledger.found(value.as_bytes());
        }
        ledger.found(&[0xff, 0xfe]);
        ledger.found(u64::MAX.to_string().as_bytes());
        assert_eq!(ledger.next_write(), ("b".into(), 28));
        assert_eq!(ledger.check("c", Some(b"whatever an earlier run left")), Ok(()));
    }
}
