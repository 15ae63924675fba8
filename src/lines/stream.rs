//! Writing to a standard stream without waiting for its reader.
//!
//! `O_NONBLOCK` belongs to the open description, which the shell, other programs of the pipeline and other nodes share:
//! setting it there would make *their* writes fail. So there is one way for each kind of stream:
//!
//! | stream | how |
//! |---|---|
//! | file, block device | as always: it takes what fits on its disk, and says so if nothing does |
//! | pipe, terminal | a description of our own, opened through `/proc/self/fd`, that does not block |
//! | the same if that may not be opened (a pipe made by root, in a container) | asked first whether there is room, then a write that fits into it, which the kernel may refuse (`RWF_NOWAIT`) |
//! | socket | `MSG_DONTWAIT` |
//!
//! What remains: a kernel before 6.4 knows no `RWF_NOWAIT` for pipes. If another process writes to the same pipe of
//! root's between the question and the write, the write may wait for its reader.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open, tell};
use rustix::io::{Errno, ReadWriteFlags, pread, pwritev2};
use rustix::net::{SendFlags, send};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, isatty, tcgetattr, tcgetpgrp};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A pipe in which there is room for anything takes so many bytes as a whole (`PIPE_BUF` of Linux).
const PIECE_BYTES: usize = 4096;

/// Something that bytes can be written to, and how that is done without waiting.
#[derive(Debug)]
pub struct Stream<'fd> {
    fd: BorrowedFd<'fd>,
    way: Way,
    /// Job control may stop a background job that writes to it.
    is_terminal: bool,
}

#[derive(Debug)]
enum Way {
    /// Waits for a disk at most.
    Direct,
    /// Another description of the same stream, which does not block.
    Own(OwnedFd),
    /// Only if there is room. Whether the kernel is asked to say so itself, or was and knows no such thing.
    Asked {
        may_refuse: bool,
    },
    Socket,
}

impl<'fd> Stream<'fd> {
    pub fn new(fd: BorrowedFd<'fd>) -> Self {
        let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let is_terminal = isatty(fd);
        let way = match kind {
            Ok(FileType::Socket) => Way::Socket,
            Ok(FileType::Fifo) => Stream::own(fd),
            Ok(FileType::CharacterDevice) if is_terminal => Stream::own(fd),
            Ok(FileType::CharacterDevice) => Way::Asked { may_refuse: true },
            _ => Way::Direct,
        };
        Stream { fd, way, is_terminal }
    }

    /// A pipe has to have a reader at this moment, and this user must be allowed to open it.
    fn own(fd: BorrowedFd<'_>) -> Way {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags =
            OFlags::WRONLY | OFlags::NONBLOCK | OFlags::APPEND | OFlags::NOCTTY | OFlags::CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(own) => Way::Own(own),
            Err(_) => Way::Asked { may_refuse: true },
        }
    }

    /// As it is used where nothing can be opened.
    #[cfg(test)]
    pub(super) fn asked(fd: BorrowedFd<'fd>, may_refuse: bool) -> Self {
        Stream { fd, way: Way::Asked { may_refuse }, is_terminal: isatty(fd) }
    }

    /// Whether what is written next goes behind something that is no whole line. Only of a file this can be known, and
    /// only if this user may read it.
    pub(super) fn is_amid_a_line(&self) -> bool {
        matches!(self.way, Way::Direct)
            && last_byte(self.fd).is_ok_and(|last| last.is_some_and(|last| last != b'\n'))
    }

    /// Writes what the stream takes at once, at least a byte. `WouldBlock`: nothing at present.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_terminal && self.would_stop_us() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = match &mut self.way {
            Way::Direct => rustix::io::write(self.fd, bytes),
            Way::Own(own) => rustix::io::write(own, bytes),
            Way::Socket => send(self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Asked { may_refuse } => write_if_room(self.fd, bytes, may_refuse),
        };
        Ok(written?)
    }

    /// Waits until the stream may take something, a signal comes, or `patience` is over.
    pub fn await_room(&self, patience: Duration) {
        if self.is_terminal && self.would_stop_us() {
            // No event tells when this job is in the foreground again.
            return std::thread::sleep(patience.min(Duration::from_millis(100)));
        }
        let fd = match &self.way {
            Way::Own(own) => own.as_fd(),
            _ => self.fd,
        };
        let timeout = Timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        // The caller finds out by writing.
        let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&timeout));
    }

    /// After `stty tostop`, the terminal stops a background job at its first byte (SIGTTOU).
    fn would_stop_us(&self) -> bool {
        // Of another terminal than the controlling one there is no foreground.
        let Ok(foreground) = tcgetpgrp(self.fd) else { return false };
        let stops = |modes: LocalModes| modes.contains(LocalModes::TOSTOP);
        foreground != getpgrp() && tcgetattr(self.fd).is_ok_and(|now| stops(now.local_modes))
    }
}

impl Stream<'static> {
    /// Standard error, for this process alone: what else writes to it (the standard library's last words when memory or
    /// stack are at their end) does not wait either. The description that it shares with others stays as it is.
    pub fn stderr() -> Self {
        let stream = Stream::new(rustix::stdio::stderr());
        if let Way::Own(own) = &stream.way {
            // If it fails, only those last words may wait.
            let _ = rustix::stdio::dup2_stderr(own);
        }
        stream
    }
}

/// The byte before those that are written next.
fn last_byte(fd: BorrowedFd<'_>) -> rustix::io::Result<Option<u8>> {
    let stat = fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let end = match fcntl_getfl(fd)?.contains(OFlags::APPEND) {
        true => u64::try_from(stat.st_size).unwrap_or(0),
        false => tell(fd)?,
    };
    let Some(at) = end.checked_sub(1) else { return Ok(None) };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut last = [0];
    let read = pread(file, &mut last, at)?;
    Ok((read == 1).then_some(last[0]))
}

fn write_if_room(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    may_refuse: &mut bool,
) -> rustix::io::Result<usize> {
    let piece = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
    if !has_room(fd)? {
        return Err(Errno::AGAIN);
    }
    if *may_refuse {
        match pwritev2(fd, &[IoSlice::new(piece)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => *may_refuse = false,
            other => return other,
        }
    }
    rustix::io::write(fd, piece)
}

/// Whether a write would not wait: there is room, or an error to be told.
fn has_room(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut asked = [PollFd::new(&fd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut asked, Some(&now)) {
        Ok(ready) => Ok(ready > 0),
        Err(error) => Err(error),
    }
}
