//! What is answered over HTTP: the page, is the process alive, is it of use, and what does it
//! count.

use super::talk::{Pause, Step};
use super::{Server, metrics, page};
use crate::net::ConnId;
use crate::protocol::exposition;
use crate::protocol::http::{
    self, Connection, HttpStep, PLAIN_TEXT, Request, Response, Status, put_error,
};
use crate::wal::Disk;
use std::borrow::Cow;
use std::time::Instant;

const NOT_FOUND: &str = "404 Not Found. There is:\n\n\
    /              a page that shows the cluster\n\
    /status.json   what it shows, and /history.json the last minutes\n\
    /livez         the process is alive: its loop turns\n\
    /readyz        it can serve clients, or pass them on to the leader; else 503, and why not\n\
    /metrics       for Prometheus\n";

impl<D: Disk> Server<D> {
    /// Nothing here waits for the node or counts against what other clients may ask for: a probe is
    /// answered whatever they do.
    pub(super) fn step_http(&mut self, conn: ConnId, now: Instant) -> Step {
        if self.links.net.outbox_len(conn) >= self.unread_bytes_max() {
            return Err(Pause::MustWait);
        }
        match http::next_request(self.links.net.inbox(conn).unwrap_or_default()) {
            HttpStep::NeedMore { .. } => Err(Pause::NeedMore),
            HttpStep::Error(status) => {
                if let Some(outbox) = self.links.net.outbox(conn) {
                    put_error(status, outbox);
                }
                Err(Pause::CloseAfterFlush)
            }
            HttpStep::Request { mut request, consumed } => {
                self.links.net.consume(conn, consumed);
                // A probe is answered when there are too many clients as well, and takes nobody's place.
                if self.links.is_crowded() {
                    request.connection = Connection::Close;
                }
                self.respond(conn, &request, now);
                match request.connection {
                    Connection::Close => Err(Pause::CloseAfterFlush),
                    Connection::Keep | Connection::KeepAlive => {
                        self.links.net.await_words(conn);
                        Ok(())
                    }
                }
            }
        }
    }

    fn respond(&mut self, conn: ConnId, request: &Request, now: Instant) {
        self.counts.http_requests += 1;
        let plain = |status, text: &str| (status, PLAIN_TEXT, Cow::from(text.as_bytes().to_vec()));
        let (status, content_type, body) = match request.path.as_str() {
            "/" => (Status::Ok, page::HTML, Cow::from(page::PAGE.as_bytes())),
            "/status.json" => (Status::Ok, page::JSON, page::status(self, now).into_bytes().into()),
            "/history.json" => (Status::Ok, page::JSON, page::history(self).into_bytes().into()),
            // That it is said is the answer: a loop that hangs, or waits for its disk, says nothing.
            "/livez" => plain(Status::Ok, "alive\n"),
            "/readyz" => match self.unready(now) {
                reasons if reasons.is_empty() => match self.replica.node().no_growth() {
                    None => plain(Status::Ok, "ready\n"),
                    // Of use all the same: it reads and deletes, and only that makes room.
                    Some(reason) => {
                        plain(Status::Ok, &format!("ready, but {}\n", reason.in_words()))
                    }
                },
                reasons => {
                    let text =
                        format!("{} is not ready:\n{}\n", self.config.name, reasons.join("\n"));
                    plain(Status::Unavailable, &text)
                }
            },
            "/metrics" => {
                (Status::Ok, exposition::CONTENT_TYPE, metrics::exposed(self, now).into())
            }
            _ => plain(Status::NotFound, NOT_FOUND),
        };
        let policy = (content_type == page::HTML).then_some(page::POLICY);
        let response = Response { status, content_type, policy, body: &body };
        if let Some(outbox) = self.links.net.outbox(conn) {
            response.encode(request.is_head, request.connection, outbox);
        }
    }
}
