//! The examples of `wire-protocol.md` as bytes.

use raftkv::protocol::frame::{FrameStep, MAGIC, next_frame};
use raftkv::protocol::hello::HELLO_BYTES_MAX;

pub const DOCUMENT: &str = include_str!("../../wire-protocol.md");

/// The payload of the one frame that the bytes are, after the magic if it is there.
pub fn payload_of(bytes: &[u8]) -> &[u8] {
    let frame = bytes.strip_prefix(&MAGIC).unwrap_or(bytes);
    match next_frame(frame, HELLO_BYTES_MAX).expect("a frame with a right checksum") {
        FrameStep::Frame { payload, consumed } if consumed == frame.len() => payload,
        step => panic!("one whole frame, not {step:?}"),
    }
}

/// The bytes of every block that is marked ```` ```hex name=... ````, in the document's order.
pub fn documented() -> Vec<(&'static str, Vec<u8>)> {
    let mut examples = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(marks) = line.strip_prefix("```hex") else { continue };
        let name = marks.trim().strip_prefix("name=").expect("an example has a name");
        let block = lines.by_ref().take_while(|line| *line != "```");
        examples.push((name, block.flat_map(bytes_of_line).collect()));
    }
    examples
}

fn bytes_of_line(line: &str) -> Vec<u8> {
    let digits = line.split('#').next().unwrap_or("");
    let bytes = digits.split_whitespace().map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().unwrap_or_else(|_| panic!("hexadecimal bytes: {line}"))
}
