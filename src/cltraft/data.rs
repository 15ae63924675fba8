//! Standard output as it is for data: nothing of it is ever left out. It waits for its reader for as long as that takes,
//! or until a signal ends the wait with an error.

use super::signals::Signals;
use crate::lines::Stream;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

/// How often the wait looks for a signal: it may have come to another thread.
const SLICE: Duration = Duration::from_millis(200);

pub struct Data<'a> {
    stream: Stream<'static>,
    signals: &'a Signals,
}

impl<'a> Data<'a> {
    pub fn on_stdout(signals: &'a Signals) -> Self {
        Data { stream: Stream::new(rustix::stdio::stdout()), signals }
    }
}

impl Write for Data<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write_now(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.signals.wait(Duration::ZERO).is_break() {
                        return Err(io::Error::other("a signal came while it took no more"));
                    }
                    self.stream.await_room(SLICE);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
