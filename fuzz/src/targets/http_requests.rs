//! HTTP requests: the same, however they are cut into pieces; and each has an answer that a client can
//! read.
//!
//! Input: three lengths of pieces, the stream.

use super::input::{Input, Pieces};
use crate::streams::{Asked, cut_requests};
use raftkv::protocol::http::{Connection, PLAIN_TEXT, Response, Status, put_error};

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let pieces = Pieces::choose(&mut input);
    let stream = input.rest();
    let at_once = cut_requests([stream]);
    assert_eq!(cut_requests(pieces.of(stream)), at_once, "the pieces made a difference");
    for asked in at_once {
        let mut answer = Vec::new();
        match asked {
            Asked::Request(request) => {
                assert!(request.path.starts_with('/'), "{request:?}");
                assert!(request.path.bytes().all(|byte| byte.is_ascii_graphic()), "{request:?}");
                let body = request.path.as_bytes();
                let response = Response {
                    status: Status::NotFound,
                    content_type: PLAIN_TEXT,
                    policy: None,
                    body,
                };
                response.encode(request.is_head, request.connection, &mut answer);
                let body = if request.is_head { &b""[..] } else { body };
                check_answer(&answer, request.path.len(), body, request.connection);
            }
            Asked::Error(status) => {
                put_error(status, &mut answer);
                let at = head_length(&answer);
                check_answer(&answer, answer.len() - at, &answer[at..], Connection::Close);
            }
        }
    }
}

fn head_length(answer: &[u8]) -> usize {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n");
    at.expect("an answer has a head") + 4
}

/// The head says how long the body would be, and whether the connection stays.
fn check_answer(answer: &[u8], length: usize, body: &[u8], connection: Connection) {
    let (head, rest) = answer.split_at(head_length(answer));
    let head = std::str::from_utf8(head).expect("a head is text");
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{head}");
    assert_eq!(head.contains("Connection: close"), connection == Connection::Close, "{head}");
    assert_eq!(rest, body);
}
