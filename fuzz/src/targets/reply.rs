//! What a RESP2 client reads.

/// The bytes must be one reply, whole, with nothing after it: else every later one is taken for another's.
pub fn check_reply(bytes: &[u8]) {
    assert_eq!(read_reply(bytes), Some(&b""[..]), "{}", bytes.escape_ascii());
}

/// What follows the reply at the front.
fn read_reply(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let (line, rest) = (&bytes[1..end], bytes[end..].strip_prefix(b"\r\n")?);
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'+' | b'-' => Some(rest),
        b':' => number().map(|_| rest),
        b'$' if number()? == -1 => Some(rest),
        b'$' => rest.get(usize::try_from(number()?).ok()?..)?.strip_prefix(b"\r\n"),
        b'*' => (0..number()?).try_fold(rest, |rest, _| read_reply(rest)),
        _ => None,
    }
}
