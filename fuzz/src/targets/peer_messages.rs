//! What other nodes say. Input: the payload of a frame.

use raftkv::protocol::peer;

/// A message has one encoding: what can be read is what would be written.
pub fn run(payload: &[u8]) {
    let Ok(message) = peer::decode(payload) else { return };
    let mut encoded = Vec::new();
    peer::encode(&message, &mut encoded);
    assert_eq!(encoded, payload, "{message:?}");
}
