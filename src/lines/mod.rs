//! Lines for people, to standard error or output, that never harm the process that writes them.
//!
//! A node is one thread, and somebody else said where its log goes. It may be a file on a disk that fills up, a pipe
//! whose reader hangs or has exited, or a terminal that is stopped. So a line that cannot be written at once is
//! *dropped and counted*, and a line with the count comes as soon as the stream takes one again. Nothing here panics.
//! A line waits no longer than the `patience` that the caller chose; but a write to a file takes as long as its disk does.
//!
//! - [`stream`] writes without waiting, whatever the stream is.
//! - [`mod@clean`] makes one line of one line, whatever strangers have put into it.
//!
//! This is not for data. No data may be missing, so a program that writes data waits, or ends with an error.

pub mod clean;
pub mod stream;

pub use clean::{LINE_BYTES_MAX, clean, clean_line};
pub use stream::Stream;

use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How the count of dropped lines is put into words: how many, and which stream took no more for which reason.
pub type Note = fn(u64, &str) -> String;

/// Lines to one stream.
#[derive(Debug)]
pub struct Lines<'fd> {
    stream: Stream<'fd>,
    /// `stderr`, for the note.
    name: &'static str,
    /// How long a line may wait for a reader that is slow. Once one has waited in vain, those after it do not wait.
    patience: Duration,
    note: Note,
    /// The end of a line whose beginning the stream has taken. It goes first, so that no line is glued to it.
    rest: Vec<u8>,
    dropped: u64,
    /// Dropped, and not told of.
    untold: u64,
    /// Why the last line was dropped.
    trouble: String,
}

static STDERR: LazyLock<Mutex<Lines<'static>>> =
    LazyLock::new(|| Mutex::new(Lines::new(Stream::stderr(), "stderr")));
static STDOUT: LazyLock<Mutex<Lines<'static>>> =
    LazyLock::new(|| Mutex::new(Lines::new(Stream::new(rustix::stdio::stdout()), "stdout")));

/// This process's standard error.
pub fn stderr() -> MutexGuard<'static, Lines<'static>> {
    // A panic leaves nothing in here half done.
    STDERR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process's standard output, for lines that are no data.
pub fn stdout() -> MutexGuard<'static, Lines<'static>> {
    STDOUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic's message goes the way of all lines: it waits for nobody, so that an abort is no hang. `dress` puts a head
/// before each line. A backtrace, if `RUST_BACKTRACE` asks for one, goes the same way.
pub fn set_panic_hook(dress: fn(&str) -> String) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => trace.to_string(),
            _ => String::new(),
        };
        let message = format!("thread '{name}' {panic}").replacen('\n', " ", 1);
        let mut lines = match STDERR.try_lock() {
            Ok(lines) => lines,
            Err(TryLockError::Poisoned(lines)) => lines.into_inner(),
            // This thread panics while it writes a line, and will not give the lock back.
            Err(TryLockError::WouldBlock) => return,
        };
        lines.say(&dress(&message));
        trace.lines().for_each(|line| lines.say(&dress(line)));
    }));
}

/// `17 lines were dropped: stderr took no more (No space left on device)`.
fn plain_note(count: u64, why: &str) -> String {
    count_note("line", count, why)
}

/// The note of dropped lines that are called `what`.
pub fn count_note(what: &str, count: u64, why: &str) -> String {
    match count {
        1 => format!("1 {what} was dropped: {why}"),
        _ => format!("{count} {what}s were dropped: {why}"),
    }
}

impl<'fd> Lines<'fd> {
    /// Without patience. A file may end in half a line, of a process that ended while its disk was full.
    pub fn new(stream: Stream<'fd>, name: &'static str) -> Self {
        let rest = if stream.is_amid_a_line() { b"\n".to_vec() } else { Vec::new() };
        Lines {
            rest,
            stream,
            name,
            patience: Duration::ZERO,
            note: plain_note,
            dropped: 0,
            untold: 0,
            trouble: String::new(),
        }
    }

    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub fn set_note(&mut self, note: Note) {
        self.note = note;
    }

    /// Lines that were dropped since the process began.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Why lines are being dropped now: `stderr took no more (No space left on device)`. `None` as soon as the stream
    /// has taken the note of them.
    pub fn trouble(&self) -> Option<String> {
        (self.untold > 0).then(|| format!("{} took no more ({})", self.name, self.trouble))
    }

    /// The note of lines that were dropped, if the stream has not taken it: for another stream.
    pub fn untold_note(&self) -> Option<String> {
        self.trouble().map(|why| (self.note)(self.untold, &why))
    }

    /// One line, which gets its end here; or none, and it is counted.
    pub fn say(&mut self, line: &str) {
        // It is counted, and told of.
        let _ = self.try_say(line);
    }

    /// [`Lines::say`] for whom it matters why a line was dropped.
    pub fn try_say(&mut self, line: &str) -> io::Result<()> {
        let until = self.deadline();
        let result = self.go_on(until).and_then(|()| self.put(line, until));
        if let Err(error) = &result {
            self.trouble = reason(error);
            self.dropped += 1;
            self.untold += 1;
        }
        result
    }

    /// A picture that the next one replaces, such as the progress of something. If the stream does not take it at once,
    /// nothing is missing.
    pub fn draw(&mut self, picture: &str) {
        if self.rest.is_empty() {
            // What the stream does not take now is out of date when it does.
            let _ = self.stream.write_now(picture.as_bytes());
        }
    }

    /// Finishes a line that was begun, and tells how many were dropped, if the stream takes it by now.
    pub fn retry(&mut self) {
        if !self.rest.is_empty() || self.untold > 0 {
            // It is tried again, and nothing is lost by it.
            let _ = self.go_on(None);
        }
    }

    /// Until when a line may wait. Nothing that was dropped before it could: there is no reader, or a slow one.
    fn deadline(&self) -> Option<Instant> {
        let waits = self.patience > Duration::ZERO && self.untold == 0;
        // For ever, in a form that can be added to a time.
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        waits.then(|| Instant::now() + self.patience.min(YEAR))
    }

    /// The rest of the line before, and the note of those that were dropped, come before anything new.
    fn go_on(&mut self, until: Option<Instant>) -> io::Result<()> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let written = self.write(&rest, until);
            self.rest = rest.get(written.0..).unwrap_or_default().to_vec();
            written.1?;
        }
        let Some(note) = self.untold_note() else { return Ok(()) };
        self.put(&note, until)?;
        self.untold = 0;
        Ok(())
    }

    /// A line is said as soon as the stream has taken its first byte: the rest goes before the next one.
    fn put(&mut self, line: &str, until: Option<Instant>) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        match self.write(&bytes, until) {
            (_, Ok(())) => Ok(()),
            (0, Err(error)) => Err(error),
            (taken, Err(_)) => {
                self.rest = bytes.get(taken..).unwrap_or_default().to_vec();
                Ok(())
            }
        }
    }

    /// How many bytes the stream has taken, and why no more.
    fn write(&mut self, bytes: &[u8], until: Option<Instant>) -> (usize, io::Result<()>) {
        let mut taken = 0;
        while let Some(left) = bytes.get(taken..).filter(|left| !left.is_empty()) {
            match self.stream.write_now(left) {
                Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                    match left.filter(|left| !left.is_zero()) {
                        Some(left) => self.stream.await_room(left),
                        None => return (taken, Err(error)),
                    }
                }
                Err(error) => return (taken, Err(error)),
            }
        }
        (taken, Ok(()))
    }
}

/// In words, without the number.
fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::WouldBlock {
        return "nobody reads it, or too slowly".to_owned();
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
