//! Reads that are not of one value, on the state as it is at one moment.

use super::{Failure, FailureCode, Found, Limits, ReadOp, Store};

/// What each item of an answer takes besides its bytes.
const ITEM_BYTES: usize = 5;

impl ReadOp {
    /// Fails if the answer would be too long: then nothing is left out in silence.
    pub fn carry_out(&self, store: &Store, limits: &Limits) -> Result<Found, Failure> {
        match self {
            ReadOp::Values(keys) => {
                let bytes = self.answer_bytes(store);
                let bytes_max = limits.answer_bytes_max();
                if bytes > bytes_max {
                    return Err(too_large(format!(
                        "the values have {bytes} bytes together, the limit of an answer is \
                         {bytes_max} bytes: ask for fewer keys at a time"
                    )));
                }
                Ok(Found::Values(keys.iter().map(|key| store.get(key)).collect()))
            }
            ReadOp::Lengths(keys) => {
                let length = |bytes| u32::try_from(bytes).expect("a value is shorter than 4 GiB");
                Ok(Found::Lengths(
                    keys.iter().map(|key| store.value_bytes(key).map(length)).collect(),
                ))
            }
        }
    }

    /// How long the answer would be on this state.
    pub fn answer_bytes(&self, store: &Store) -> usize {
        match self {
            ReadOp::Values(keys) => {
                keys.iter().map(|key| ITEM_BYTES + store.value_bytes(key).unwrap_or(0)).sum()
            }
            ReadOp::Lengths(keys) => keys.len() * ITEM_BYTES,
        }
    }
}

fn too_large(message: String) -> Failure {
    Failure { code: FailureCode::TooLarge, message, leader: None }
}
