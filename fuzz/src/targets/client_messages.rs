//! Requests, and the answers to them, in both protocols. Input: the payload of a frame.

use super::reply::check_reply;
use raftkv::protocol::client::{ReplyBody, ReplyFrame, RequestBody, RequestFrame, request_id};
use raftkv::protocol::{Limits, text};

/// A message has one encoding: what can be read is what would be written.
pub fn run(payload: &[u8]) {
    let mut encoded = Vec::new();
    match RequestFrame::decode(payload) {
        Ok(request) => {
            request.encode(&mut encoded);
            assert_eq!(encoded, payload, "{request:?}");
            assert_eq!(request_id(payload), Some(request.id));
            if let RequestBody::Ask(request) = &request.body {
                let _ = Limits::default().check(request);
            }
        }
        // Whoever asks gets an answer if there is an id to answer to.
        Err(bad) => assert_eq!(request_id(payload), bad.id),
    }
    encoded.clear();
    if let Ok(reply) = ReplyFrame::decode(payload) {
        reply.encode(&mut encoded);
        assert_eq!(encoded, payload, "{reply:?}");
        if let ReplyBody::Answer(answer) = &reply.body {
            encoded.clear();
            text::answer_to_resp(answer, text::Reply::default(), &mut encoded);
            check_reply(&encoded);
        }
    }
}
