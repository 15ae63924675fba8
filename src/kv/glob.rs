//! Redis's patterns: `*`, `?`, `[a-c]`, `[^a]`, and `\` before a byte that means itself.

/// Whether the whole text fits. What a star has taken is only ever tried again for the last one, so the
/// work is at most the product of both lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut left) = (pattern, text);
    // What follows the last star, and the text at which it is tried next.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        match rest {
            [b'*', after @ ..] => {
                again = Some((after, left));
                rest = after;
                continue;
            }
            [] if left.is_empty() => return true,
            _ => {}
        }
        let step = match left {
            [] => None,
            [byte, after @ ..] => one(rest, *byte).map(|rest| (rest, after)),
        };
        (rest, left) = match (step, again) {
            (Some(next), _) => next,
            (None, Some((after_star, [_, shorter @ ..]))) => {
                again = Some((after_star, shorter));
                (after_star, shorter)
            }
            (None, _) => return false,
        };
    }
}

/// What follows the part of a pattern that this byte fits.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', class @ ..] => class_fits(class, byte),
        [b'\\', escaped, after @ ..] => (*escaped == byte).then_some(after),
        [other, after @ ..] => (*other == byte).then_some(after),
        [] => None,
    }
}

/// A class that is not closed ends with the pattern, as in Redis.
fn class_fits(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (is_negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut fits = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', escaped, after @ ..] => {
                fits |= *escaped == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                fits |= (*from.min(to)..=*from.max(to)).contains(&byte);
                after
            }
            [other, after @ ..] => {
                fits |= *other == byte;
                after
            }
        };
    }
    (fits != is_negated).then_some(rest)
}
