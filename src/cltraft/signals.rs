//! SIGTERM and SIGINT as a reason to stop waiting.

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use std::io::{self, ErrorKind, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A file beyond `ulimit -f` is an error that is told, and not the end of the process.
pub fn let_long_files_fail() {
    // Without it, the signal does what it always does.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// The flag tells *that* a signal came, the socket ends a wait *when* it comes.
pub struct Signals {
    stop: Arc<AtomicBool>,
    woken: UnixStream,
}

impl Signals {
    pub fn install() -> io::Result<Signals> {
        let stop = Arc::new(AtomicBool::new(false));
        let (woken, wake) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: whoever is woken finds the flag set.
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
        }
        Ok(Signals { stop, woken })
    }

    /// Waits for `duration`, or until a signal comes; `Break` from then on.
    pub fn wait(&self, duration: Duration) -> ControlFlow<()> {
        let until = Instant::now() + duration;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return ControlFlow::Break(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return ControlFlow::Continue(());
            }
            self.sleep(left);
        }
    }

    /// Until a byte comes, the time is over or a signal interrupts: the caller finds out which.
    fn sleep(&self, duration: Duration) {
        self.woken.set_read_timeout(Some(duration)).expect("the duration is not zero");
        // Which byte, and whether there is one, says nothing that the flag does not.
        match (&self.woken).read(&mut [0]).map(drop) {
            Ok(()) => {}
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ),
                "a socket whose both ends are ours fails: {error}"
            ),
        }
    }
}
