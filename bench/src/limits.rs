//! What the machine itself allows: how long a sync takes, alone and beside two others, a round trip over loopback,
//! and an echo for many connections on one thread.

use crate::Options;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;
const BATCH_BYTES: usize = 16 << 10;
const MESSAGE_BYTES: usize = 300;
/// Each thread makes so many round trips before it answers for them.
const CONNECTIONS: usize = 64;

pub fn run(options: &Options) -> Result<(), String> {
    let seconds = options.work.duration.as_secs_f64().min(4.0);
    let folder = options.data.join(format!("raftkv-bench-limits-{}", std::process::id()));
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(fail)?;
    for writers in [1, 3] {
        let times = syncs(&folder, writers, seconds).map_err(fail)?;
        tell(&format!("16 KiB and fdatasync, {writers} at once"), &times, seconds, writers);
    }
    fs::remove_dir_all(&folder).map_err(fail)?;
    for connections in [1, CONNECTIONS] {
        let times = echo(connections, seconds).map_err(|error| error.to_string())?;
        tell(&format!("echo of 300 B, {connections} connections"), &times, seconds, 1);
    }
    Ok(())
}

fn tell(what: &str, times: &[Duration], seconds: f64, by: usize) {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_micros();
    println!(
        "{what}: p50 {} us, p99 {} us, {:.0}/s each",
        at(0.5),
        at(0.99),
        times.len() as f64 / seconds / by as f64
    );
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort();
    times
}

/// So many threads, each with a preallocated file, as nodes on one disk.
fn syncs(folder: &Path, writers: usize, seconds: f64) -> std::io::Result<Vec<Duration>> {
    let one = |number: usize| {
        let file = File::create(folder.join(number.to_string()))?;
        fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
        file.sync_all()?;
        let bytes = vec![7; BATCH_BYTES];
        let begun = Instant::now();
        let mut times = Vec::new();
        while begun.elapsed().as_secs_f64() < seconds {
            let at = times.len() as u64 * BATCH_BYTES as u64 % (FILE_BYTES - BATCH_BYTES as u64);
            let from = Instant::now();
            file.write_all_at(&bytes, at)?;
            file.sync_data()?;
            times.push(from.elapsed());
        }
        Ok(times)
    };
    let results: Vec<std::io::Result<Vec<Duration>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let all: std::io::Result<Vec<Vec<Duration>>> = results.into_iter().collect();
    Ok(sorted(all?.concat()))
}

/// One thread that sends to all connections and then reads from all; another one answers in the same way. So the
/// time of many is that of a round.
fn echo(connections: usize, seconds: f64) -> std::io::Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let accept = || -> std::io::Result<TcpStream> {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let Ok(mut streams) = (0..connections).map(|_| accept()).collect::<Result<Vec<_>, _>>()
        else {
            return;
        };
        let mut message = [0; MESSAGE_BYTES];
        loop {
            for stream in &mut streams {
                if stream.read_exact(&mut message).is_err() || stream.write_all(&message).is_err() {
                    return;
                }
            }
        }
    });
    let connect = |_| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut streams = (0..connections).map(connect).collect::<std::io::Result<Vec<_>>>()?;
    let mut message = [7; MESSAGE_BYTES];
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed().as_secs_f64() < seconds {
        let from = Instant::now();
        for stream in &mut streams {
            stream.write_all(&message)?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut message)?;
            times.push(from.elapsed());
        }
    }
    drop(streams);
    let _ = server.join();
    Ok(sorted(times))
}
