//! What servers say of themselves.

use super::call::{self, Call};
use super::connection::{Connection, Dial, Patience};
use super::{Client, ClientError};
use crate::kv::{Answer, Request};
use crate::protocol::client::{ReplyBody, RequestBody};
use std::time::{Duration, Instant};

impl Client {
    /// What the leader says of itself, as in [`Client::status`]; a read has shown just before that it leads.
    pub fn leader_status(&mut self) -> Result<Vec<(String, String)>, ClientError> {
        let began = Instant::now();
        let mut call = Call::read(self.config.total_timeout);
        loop {
            self.ask(Request::Digest, &mut call)?;
            let server = self.route.leader().expect("it has just answered").to_owned();
            let reason = match self.status(&server) {
                Ok(fields) if leads(&fields) => return Ok(fields),
                Ok(_) => "leads no more".to_owned(),
                Err(reason) => reason,
            };
            self.route.failed(&server, reason);
            self.end_of_round(began.elapsed(), &call);
        }
    }

    /// What one server says of itself: names and values. One attempt, no redirects; the error is why there
    /// is no answer.
    pub fn status(&mut self, server: &str) -> Result<Vec<(String, String)>, String> {
        let Client { config, pause, .. } = self;
        let mut stop = || pause(Duration::ZERO).is_break();
        let mut patience = Patience { total: None, stop: &mut stop };
        let dial = Dial {
            resolver: &config.resolver,
            connect_timeout: config.connect_timeout,
            name: &config.name,
            cluster_id: 0,
        };
        let ask = |patience: &mut Patience<'_>| {
            let mut connection = Connection::open(server, &dial, patience)?;
            connection.ask(&RequestBody::Status, config.request_timeout, patience)
        };
        match ask(&mut patience).map_err(|lost| call::printable(&lost.reason))? {
            ReplyBody::Status(fields) => Ok(fields),
            ReplyBody::Answer(Answer::Failed(failure)) => Err(call::in_words(&failure)),
            ReplyBody::Answer(_) | ReplyBody::Changes(_) => {
                Err("answered something else than its status".to_owned())
            }
        }
    }
}

fn leads(fields: &[(String, String)]) -> bool {
    fields.iter().any(|(name, value)| name == "raft_role" && value == "leader")
}
