//! HTTP as bytes: what is a request, what is refused and how, at any speed; and what is answered.

mod streams;

use proptest::collection::vec;
use proptest::prelude::*;
use raftkv::protocol::exposition::{Buckets, Decimal, Exposition};
use raftkv::protocol::http::{
    Connection, HEAD_BYTES_MAX, PLAIN_TEXT, Request, Response, Status, put_error,
};
use std::time::Duration;
use streams::{Asked, cut_requests};

/// The same at any speed, which every case must be.
fn asked(stream: &[u8]) -> Vec<Asked> {
    let whole = cut_requests([stream]);
    assert_eq!(cut_requests(stream.chunks(1)), whole, "{}", stream.escape_ascii());
    whole
}

fn request(path: &str, is_head: bool, connection: Connection) -> Asked {
    Asked::Request(Request { path: path.to_string(), is_head, connection })
}

fn get(path: &str) -> Asked {
    request(path, false, Connection::Keep)
}

#[test]
fn requests_are_read_with_what_they_say_of_the_connection() {
    for (stream, expected) in [
        (&b"GET / HTTP/1.1\r\nHost: n\r\n\r\n"[..], get("/")),
        (b"GET /a?b=c?d HTTP/1.1\nHost: n\n\n", get("/a")),
        (b"\r\n\nGET /a HTTP/1.1\r\nhOsT:n\r\n\r\n", get("/a")),
        (b"GET http://n:6000/a?b HTTP/1.1\r\nHost: n\r\n\r\n", get("/a")),
        (b"GET http://n HTTP/1.1\r\nHost: n\r\n\r\n", get("/")),
        (b"GET http://n?b HTTP/1.1\r\nHost: n\r\n\r\n", get("/")),
        (b"GET / HTTP/1.9\r\nHost: n\r\nContent-Length: 0\r\n\r\n", get("/")),
        (b"GET / HTTP/1.1\r\nHost: n\r\nX: \t\xff\"\r\n\r\n", get("/")),
        (b"HEAD / HTTP/1.1\r\nHost:\r\n\r\n", request("/", true, Connection::Keep)),
        (b"GET / HTTP/1.0\r\n\r\n", request("/", false, Connection::Close)),
        (
            b"GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
            request("/", false, Connection::KeepAlive),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: n\r\nConnection: keep-alive\r\nConnection: CLOSE\r\n\r\n",
            request("/", false, Connection::Close),
        ),
    ] {
        assert_eq!(asked(stream), [expected], "{}", stream.escape_ascii());
    }
}

#[test]
fn pipelined_requests_are_read_one_after_the_other() {
    let stream =
        b"GET /a HTTP/1.1\r\nHost: n\r\n\r\n\r\nHEAD /b HTTP/1.1\r\nHost: n\r\n\r\nGET /c HT";
    assert_eq!(asked(stream), [get("/a"), request("/b", true, Connection::Keep)]);
}

#[test]
fn what_could_be_read_in_two_ways_or_is_not_offered_is_refused() {
    let (bad, method) = (Status::BadRequest, Status::MethodNotAllowed);
    for (stream, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\nHost: n\r\n\r\n", bad),
        (b"GET / HTTP/1.0\r\nHost: n\r\nHost: m\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nHELLO", bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\nA: b\r\n c\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost : n\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\n: n\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\nA: b\rc\r\n\r\n", bad),
        (b"GET / HTTP/1.1\r\nHost: n\r\nA: \0\r\n\r\n", bad),
        (b"GET  / HTTP/1.1\r\nHost: n\r\n\r\n", bad),
        (b"GET / a HTTP/1.1\r\nHost: n\r\n\r\n", bad),
        (b"GET HTTP/1.1\r\nHost: n\r\n\r\n", bad),
        (b"GET a HTTP/1.1\r\nHost: n\r\n\r\n", bad),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: n\r\n\r\n", bad),
        (b"GET / HTTP/2.0\r\nHost: n\r\n\r\n", bad),
        (b"GET /\r\n\r\n", bad),
        (b"SET a 1\r\n\r\n", bad),
        (b"G(T / HTTP/1.1\r\nHost: n\r\n\r\n", bad),
        (b"PUT / HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nHELLO", method),
        (b"POST / HTTP/1.1\r\nHost: n\r\n\r\n", method),
        (b"get / HTTP/1.1\r\nHost: n\r\n\r\n", method),
        (b"OPTIONS * HTTP/1.1\r\nHost: n\r\n\r\n", method),
    ] {
        assert_eq!(asked(stream), [Asked::Error(status)], "{}", stream.escape_ascii());
    }
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
    let head = |fill: usize| {
        [b"GET / HTTP/1.1\r\nHost: n\r\nX: ", &vec![b'x'; fill][..], b"\r\n\r\n"].concat()
    };
    let fits = HEAD_BYTES_MAX - head(0).len();
    assert_eq!(asked(&head(fits)), [get("/")]);
    assert_eq!(asked(&head(fits + 1)), [Asked::Error(Status::HeadTooLarge)]);
    let line = [&b"GET /"[..], &[b'x'; HEAD_BYTES_MAX]].concat();
    assert_eq!(asked(&line), [Asked::Error(Status::UriTooLong)]);
    assert_eq!(asked(&[b'\n'; HEAD_BYTES_MAX]), [Asked::Error(Status::HeadTooLarge)]);
    assert_eq!(asked(&[b'\n'; HEAD_BYTES_MAX - 1]), []);
}

#[test]
fn answers_say_how_long_they_are_and_whether_the_connection_stays() {
    let body = b"hello\n";
    let response = Response { status: Status::Ok, content_type: PLAIN_TEXT, policy: None, body };
    let encoded = |is_head, connection| {
        let mut out = Vec::new();
        response.encode(is_head, connection, &mut out);
        String::from_utf8(out).unwrap()
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n\
        Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
    assert_eq!(encoded(false, Connection::Keep), format!("{head}\r\nhello\n"));
    assert_eq!(encoded(true, Connection::Keep), format!("{head}\r\n"));
    assert_eq!(encoded(true, Connection::Close), format!("{head}Connection: close\r\n\r\n"));
    let kept = encoded(false, Connection::KeepAlive);
    assert_eq!(kept, format!("{head}Connection: keep-alive\r\n\r\nhello\n"));
    let mut refused = Vec::new();
    put_error(Status::MethodNotAllowed, &mut refused);
    let refused = String::from_utf8(refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refused}");
    assert!(refused.contains("\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"), "{refused}");
}

#[test]
fn a_decimal_has_the_digits_that_it_needs() {
    let nanos = |nanos| Decimal::seconds(Duration::from_nanos(nanos)).to_string();
    assert_eq!([0, 1, 125_000].map(nanos), ["0", "0.000000001", "0.000125"]);
    assert_eq!([10_000_000_000, 10_500_000_000].map(nanos), ["10", "10.5"]);
    let mut sum = Decimal::whole(u64::MAX);
    sum += Decimal::seconds(Duration::from_millis(2001));
    assert_eq!(sum.to_string(), "18446744073709551617.001");
}

#[test]
fn metrics_are_written_as_prometheus_reads_them() {
    let ms = |ms| Decimal::seconds(Duration::from_millis(ms));
    let mut out = Exposition::default();
    out.counter("a_total", "Back\\slash\nand line.", 7);
    out.gauges("b", "By name.", "name", [("x\"y\\z\n", ms(500)), ("w", ms(30_000))]);
    out.gauges("nothing", "Of nobody.", "name", [] as [(&str, u64); 0]);
    out.info("c_info", "Two labels.", &[("d", "1"), ("e", "2")]);
    let bounds = [ms(1), ms(1000)];
    let counts = Buckets { bounds: &bounds, counts: &[2, 3], count: 6, sum: ms(12_250) };
    out.histogram("f_seconds", "Times.", counts);
    let expected = "# HELP a_total Back\\\\slash\\nand line.\n# TYPE a_total counter\na_total 7\n\
        # HELP b By name.\n# TYPE b gauge\nb{name=\"x\\\"y\\\\z\\n\"} 0.5\nb{name=\"w\"} 30\n\
        # HELP c_info Two labels.\n# TYPE c_info gauge\nc_info{d=\"1\",e=\"2\"} 1\n\
        # HELP f_seconds Times.\n# TYPE f_seconds histogram\nf_seconds_bucket{le=\"0.001\"} 2\n\
        f_seconds_bucket{le=\"1\"} 5\nf_seconds_bucket{le=\"+Inf\"} 6\nf_seconds_sum 12.25\n\
        f_seconds_count 6\n";
    assert_eq!(String::from_utf8(out.into_bytes()).unwrap(), expected);
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "(GET|HEAD) /[a-z]{0,9} HTTP/1.1\r?\nHost: n\r?\n([A-Za-z-]{1,9}: [ -~]{0,9}\r?\n){0,3}\r?\n"
            .prop_map(String::into_bytes),
        2 => "[A-Za-z /:.0-9]{0,30}\r?\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..40),
        1 => Just(vec![b'x'; HEAD_BYTES_MAX]),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn requests_are_cut_the_same_at_any_speed(stream in stream(), chunk in 1..100usize) {
        let whole = cut_requests([&stream[..]]);
        prop_assert_eq!(&cut_requests(stream.chunks(chunk)), &whole);
        for asked in whole {
            if let Asked::Request(request) = asked {
                prop_assert!(request.path.starts_with('/'));
            }
        }
    }

    #[test]
    fn garbage_is_refused_or_waited_for(garbage in vec(any::<u8>(), 0..200)) {
        let asked = cut_requests(garbage.chunks(7));
        prop_assert!(!asked.iter().any(|asked| matches!(asked, Asked::Request(_))));
    }
}
