//! Lines to real pipes, sockets, files and terminals that take nothing.

use super::*;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{PipeWriter, Read, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::{env, fs, thread};

const FILLING: u8 = b'#';
const SLOW: &str = "stderr took no more (nobody reads it, or too slowly)";

fn lines(stream: Stream<'_>) -> Lines<'_> {
    Lines::new(stream, "stderr")
}

/// Every way of writing to a pipe: a description of our own, asking first, and asking under an old kernel.
fn ways(writer: &PipeWriter) -> [Stream<'_>; 3] {
    let asked = |may_refuse| Stream::asked(writer.as_fd(), may_refuse);
    [Stream::new(writer.as_fd()), asked(true), asked(false)]
}

fn fill(stream: &mut Stream<'_>) {
    while stream.write_now(&[FILLING; 4096]).is_ok() {}
    while stream.write_now(&[FILLING]).is_ok() {}
}

/// What can be read now, without the filling.
fn read_now<R: Read + AsFd>(reader: &mut R) -> String {
    let flags = fcntl_getfl(&*reader).unwrap();
    fcntl_setfl(&*reader, flags | OFlags::NONBLOCK).unwrap();
    let mut bytes = Vec::new();
    if let Err(error) = reader.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    bytes.retain(|byte| *byte != FILLING);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn lines_to_a_full_pipe_are_dropped_and_counted_and_told_of_once_it_is_read() {
    let (mut reader, writer) = pipe().unwrap();
    for stream in ways(&writer) {
        let mut lines = lines(stream);
        lines.say("before");
        fill(&mut lines.stream);
        for _ in 0..17 {
            lines.say("lost");
        }
        lines.retry();
        assert_eq!(lines.dropped(), 17, "a note that does not fit is no line that is lost");
        assert_eq!(lines.trouble().as_deref(), Some(SLOW));
        assert_eq!(read_now(&mut reader), "before\n");
        lines.retry();
        lines.retry();
        assert_eq!((lines.dropped(), lines.trouble()), (17, None));
        lines.say("after");
        assert_eq!(read_now(&mut reader), format!("17 lines were dropped: {SLOW}\nafter\n"));
    }
}

#[test]
fn a_pipe_is_not_made_non_blocking_for_those_who_share_it() {
    let (_reader, writer) = pipe().unwrap();
    let before = fcntl_getfl(&writer).unwrap();
    for stream in ways(&writer) {
        lines(stream).say("a line");
        assert_eq!(fcntl_getfl(&writer).unwrap(), before);
    }
    assert!(!before.contains(OFlags::NONBLOCK));
}

#[test]
fn lines_to_a_pipe_whose_reader_has_exited_are_dropped() {
    for way in 0..3 {
        let (reader, writer) = pipe().unwrap();
        let mut lines = lines(ways(&writer).into_iter().nth(way).unwrap());
        drop(reader);
        assert_eq!(lines.try_say("lost").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(lines.trouble().as_deref(), Some("stderr took no more (Broken pipe)"));
    }
    // There never was a reader that a description of our own could have been opened for.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut lines = lines(Stream::new(writer.as_fd()));
    lines.say("lost");
    assert_eq!(lines.dropped(), 1);
}

#[test]
fn lines_to_a_full_disk_are_dropped_with_the_disks_reason() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut lines = lines(Stream::new(full.as_fd()));
    lines.say("lost");
    lines.say("lost");
    let why = "stderr took no more (No space left on device)";
    assert_eq!((lines.dropped(), lines.trouble().as_deref()), (2, Some(why)));
}

/// A socket takes as much of a line as there is room for.
#[test]
fn a_line_that_was_written_in_part_is_finished_before_the_next() {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let mut lines = lines(Stream::new(writer.as_fd()));
    let long = "a long line ".repeat(1 << 16);
    let mut said = 0;
    while lines.rest.is_empty() {
        assert!(lines.try_say(&long).is_ok() && said < 1000, "it is begun");
        said += 1;
    }
    assert!(lines.rest.len() < long.len(), "it is begun");
    lines.say("lost");
    assert_eq!(lines.dropped(), 1);
    let mut all = String::new();
    while lines.trouble().is_some() {
        all += &read_now(&mut reader);
        lines.retry();
    }
    lines.say("after");
    all += &read_now(&mut reader);
    let expected = format!("{long}\n").repeat(said);
    assert_eq!(all, format!("{expected}1 line was dropped: {SLOW}\nafter\n"));
}

#[test]
fn a_picture_that_cannot_be_drawn_is_no_line_that_is_lost() {
    let (mut reader, writer) = pipe().unwrap();
    let mut lines = lines(Stream::new(writer.as_fd()));
    lines.draw("\r1 %");
    assert_eq!(read_now(&mut reader), "\r1 %");
    fill(&mut lines.stream);
    lines.draw("\r2 %");
    assert_eq!((lines.dropped(), lines.rest.len()), (0, 0));
}

#[test]
fn a_patient_line_waits_for_a_reader_and_after_one_that_waited_in_vain_none_does() {
    const PATIENCE: Duration = Duration::from_millis(200);
    let (mut reader, writer) = pipe().unwrap();
    for stream in ways(&writer) {
        let mut lines = lines(stream);
        lines.set_patience(PATIENCE);
        fill(&mut lines.stream);
        let begun = Instant::now();
        lines.say("lost");
        assert!(begun.elapsed() >= PATIENCE, "it has waited");
        let begun = Instant::now();
        (0..100).for_each(|_| lines.say("lost"));
        assert!(begun.elapsed() < 100 * PATIENCE, "the others have not");
        assert_eq!(read_now(&mut reader), "");
        lines.say("after");
        assert_eq!(read_now(&mut reader), format!("101 lines were dropped: {SLOW}\nafter\n"));
    }
}

#[test]
fn a_line_that_waits_is_written_as_soon_as_there_is_room() {
    for way in 0..3 {
        let (mut reader, writer) = pipe().unwrap();
        let mut lines = lines(ways(&writer).into_iter().nth(way).unwrap());
        lines.set_patience(Duration::MAX);
        fill(&mut lines.stream);
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        lines.say("as soon as somebody reads");
        assert_eq!(lines.dropped(), 0);
        drop(lines);
        drop(writer);
        let text = read.join().unwrap().unwrap();
        assert!(text.ends_with("#as soon as somebody reads\n"), "{text}");
    }
}

/// Such as a process leaves that was killed while its disk was full.
#[test]
fn half_a_line_at_the_end_of_a_file_is_not_glued_to_the_next() {
    let path = env::temp_dir().join(format!("raftkv-half-{}", std::process::id()));
    for (before, expected) in [("", "a\n"), ("whole\n", "whole\na\n"), ("hal", "hal\na\n")] {
        fs::write(&path, before).unwrap();
        let appending = File::options().append(true).open(&path).unwrap();
        lines(Stream::new(appending.as_fd())).say("a");
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        // As the shell's > opens it: not at its end.
        fs::write(&path, before).unwrap();
        let overwriting = File::options().write(true).open(&path).unwrap();
        lines(Stream::new(overwriting.as_fd())).say("a");
        assert!(fs::read_to_string(&path).unwrap().starts_with("a\n"), "{before}");
    }
    fs::remove_file(&path).unwrap();
}

const CHILD: &str = "RAFTKV_TEST_FILE_LIMIT";

/// Runs the next test in a process of its own: the limit is the process's.
#[test]
fn a_file_that_may_not_grow_is_a_full_disk() {
    let status = std::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "lines::tests::file_limit", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "limits its process: the test before this one runs it"]
fn file_limit() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let path = env::temp_dir().join(format!("raftkv-lines-{}", std::process::id()));
    let file = File::create(&path).unwrap();
    // With a handler, the write fails instead of ending the process.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .unwrap();
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(10), ..before }).unwrap();
    let mut lines = lines(Stream::new(file.as_fd()));
    lines.say("0123");
    lines.say("56789abc");
    lines.say("lost");
    assert_eq!((lines.dropped(), lines.rest.as_slice()), (1, &b"abc\n"[..]));
    assert_eq!(lines.trouble().as_deref(), Some("stderr took no more (File too large)"));
    setrlimit(Resource::Fsize, before).unwrap();
    lines.say("after");
    let why = "stderr took no more (File too large)";
    let expected = format!("0123\n56789abc\n1 line was dropped: {why}\nafter\n");
    let written = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(written, expected);
}
