//! The definition itself: every order of a few operations is tried. Shares nothing with the checker.

use raftkv::linearizable::{Call, Op, Res};

/// What a register does, in the plainest way.
pub fn apply(value: &mut Option<Vec<u8>>, call: &Call) -> Res {
    match call {
        Call::Get => Res::Value(value.clone()),
        Call::Put(new) => {
            *value = Some(new.clone());
            Res::Put
        }
        Call::Delete => Res::Deleted(value.take().is_some()),
        Call::Clear => {
            *value = None;
            Res::Put
        }
        Call::CompareAndSet { expected, value: new } => {
            let swaps = *value == *expected;
            if swaps {
                *value = Some(new.clone());
            }
            Res::Swapped(swaps)
        }
        Call::Increment(delta) => {
            let text = value.clone().unwrap_or(b"0".to_vec());
            let text = String::from_utf8_lossy(&text).into_owned();
            // Only what an integer is printed as is one.
            let Some(integer) = text.parse::<i64>().ok().filter(|n| n.to_string() == text) else {
                return Res::NotAnInteger;
            };
            let Some(sum) = integer.checked_add(*delta) else { return Res::Overflow };
            *value = Some(sum.to_string().into_bytes());
            Res::Counter(sum)
        }
    }
}

/// Whether the operations, all of one key, have an order.
pub fn is_linearizable(ops: &[Op]) -> bool {
    assert!(ops.len() <= 8, "the number of orders is the factorial");
    place_next(&ops.iter().collect::<Vec<_>>(), &None)
}

fn place_next(rest: &[&Op], value: &Option<Vec<u8>>) -> bool {
    if rest.iter().all(|op| op.returned.is_none()) {
        return true;
    }
    rest.iter().enumerate().any(|(i, op)| {
        let must_wait =
            rest.iter().any(|other| other.returned.is_some_and(|returned| returned < op.invoked));
        let mut value = value.clone();
        let result = apply(&mut value, &op.call);
        let is_right = op.result.is_none() || op.result.as_ref() == Some(&result);
        let others = [&rest[..i], &rest[i + 1..]].concat();
        !must_wait && is_right && place_next(&others, &value)
    })
}
