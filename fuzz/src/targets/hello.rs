//! The first message each way, and whether it is acceptable. Input: the payload of a frame.

use raftkv::node::Standing;
use raftkv::protocol::hello::{
    HELLO_BYTES_MAX, Hello, HelloReply, Identity, REASON_BYTES_MAX, VERSION_MAX, VERSION_MIN,
    judge, judge_welcome,
};
use raftkv::raft::{Membership, node_id};

pub fn run(payload: &[u8]) {
    let peers = [1, 2].map(|node| (node, format!("raft-{node}"))).into();
    let membership = Membership { cluster_id: 7, ..Membership::of_voters([node_id(1, 1)]) };
    let us = Identity {
        cluster_id: 0x5af3_107a_4000_c0de,
        node: 0,
        incarnation: 7,
        name: "raft-0",
        standing: Standing::Member { cluster_id: 7 },
        membership: &membership,
        committed: &membership,
        peers: &peers,
    };
    if let Ok(hello) = Hello::decode(payload) {
        check_encoding(payload, |out| hello.encode(out));
        match judge(&hello, &us) {
            Ok(version) => {
                assert!((VERSION_MIN..=VERSION_MAX).contains(&version), "{version}");
                assert!((hello.version_min..=hello.version_max).contains(&version), "{hello:?}");
            }
            Err(refused) => check_reply(&HelloReply::Refused(refused)),
        }
    }
    if let Ok(reply) = HelloReply::decode(payload) {
        match &reply {
            HelloReply::Refused(refused) if refused.reason.len() > REASON_BYTES_MAX => {}
            _ => check_encoding(payload, |out| reply.encode(out)),
        }
        check_reply(&reply);
        if let HelloReply::Welcome(welcome) = &reply
            && let Err(refused) = judge_welcome(welcome, &us, 2)
        {
            check_reply(&HelloReply::Refused(refused));
        }
    }
}

/// What can be read is what would be written, and maybe more after it, of a later version.
fn check_encoding(payload: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
    let mut encoded = Vec::new();
    encode(&mut encoded);
    assert!(payload.starts_with(&encoded));
    assert!(encoded.len() <= HELLO_BYTES_MAX);
}

/// A reply fits into the frame that it is sent in, and says the same once more when it was cut.
fn check_reply(reply: &HelloReply) {
    let (mut encoded, mut again) = (Vec::new(), Vec::new());
    reply.encode(&mut encoded);
    assert!(encoded.len() <= HELLO_BYTES_MAX, "{} bytes", encoded.len());
    HelloReply::decode(&encoded).expect("it was just written").encode(&mut again);
    assert_eq!(encoded, again);
}
